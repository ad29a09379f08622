#!/bin/sh
# Renders the manifests of this folder anew, with what the first argument names.
set -eu
cd "$(dirname "$0")"
program=${1:-rdu-batch}
render() {
    "$program" render k8s nightly.yaml --image example.com/rdu-batch:0.1.0 \
        --ray-version 2.60.0 --service-account rdu-batch "$@"
}
render --date 2026-11-22 > rayjob.yaml
render --date 2026-11-22 --queue batch > rayjob-kueue.yaml
render --date 2026-11-22 --spot karpenter.sh/capacity-type=spot > rayjob-spot.yaml
render --kind cronjob > cronjob.yaml
render --kind raycronjob > raycronjob-alpha.yaml
