"""An output is picked up by other programs with one line each, while and after it is made.

Each reads only ``part-*``: the run folder and dead letters do not get in the way.
"""

import json

import pytest

FORMATS = ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"]
LINES = [
    json.dumps({"id": f"r{n}", "text": f"row {n}", "label": ["good", "bad"][n % 2]}).encode()
    for n in range(10)
] + [b'{"id": "dead", "text": 6, "label": "good"}']


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, job_folder_class):
    """The same job in every format: four parts, one row a dead letter."""
    found = {}
    for part_format in FORMATS:
        job = job_folder_class(tmp_path_factory.mktemp("shared"))
        job.write(LINES, rows_per_shard=3)
        done = job.run("--executor", "inline", "--set", f"output.format={part_format}")
        assert done.returncode == 0, done.stderr
        found[part_format] = job.output
    return found


@pytest.fixture(scope="module")
def predictions(outputs):
    """What the plain parts say, read with the standard library alone."""
    lines = [line for path in sorted(outputs["jsonl"].glob("part-*")) for line in path.open("rb")]
    return {record["id"]: record["prediction"] for record in map(json.loads, lines)}


def check(ids, texts, predictions, part_format):
    """All predictions, each once; in Parquet an id is JSON text."""
    plain_ids = map(json.loads, ids) if part_format == "parquet" else ids
    pairs = list(zip(plain_ids, texts, strict=True))
    assert len(pairs) == len(predictions) == 10
    assert dict(pairs) == predictions


@pytest.mark.parametrize("part_format", FORMATS)
def test_pandas_reads_each_part(outputs, predictions, part_format):
    pandas = pytest.importorskip("pandas")
    parts = sorted(outputs[part_format].glob("part-*"))
    if part_format == "parquet":
        frame = pandas.read_parquet(parts)
    else:
        frame = pandas.concat(pandas.read_json(part, lines=True) for part in parts)
    check(frame["id"], frame["prediction"], predictions, part_format)


@pytest.mark.parametrize("part_format", FORMATS)
def test_duckdb_queries_a_glob_of_parts(outputs, predictions, part_format):
    duckdb = pytest.importorskip("duckdb")
    read = "read_parquet" if part_format == "parquet" else "read_json"
    parts = f"{outputs[part_format]}/part-*"
    found = duckdb.sql(f"select id, prediction, label from {read}('{parts}')").fetchall()  # noqa: S608
    check([row[0] for row in found], [row[1] for row in found], predictions, part_format)
    assert {str(row[2]).strip('"') for row in found} == {"good", "bad"}


@pytest.mark.parametrize("part_format", FORMATS)
def test_datasets_loads_a_glob_of_parts(outputs, predictions, part_format, tmp_path):
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "parquet" if part_format == "parquet" else "json",
        data_files=f"{outputs[part_format]}/part-*",
        split="train",
        cache_dir=str(tmp_path),
    )
    check(loaded["id"], loaded["prediction"], predictions, part_format)


@pytest.mark.ray
@pytest.mark.all_only
def test_ray_data_reads_the_parts(outputs, predictions):
    ray = pytest.importorskip("ray")
    data = pytest.importorskip("ray.data")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        for part_format, read in (("jsonl", data.read_json), ("parquet", data.read_parquet)):
            parts = [str(path) for path in sorted(outputs[part_format].glob("part-*"))]
            rows = read(parts).take_all()
            ids, texts = ([row[key] for row in rows] for key in ("id", "prediction"))
            check(ids, texts, predictions, part_format)
    finally:
        ray.shutdown()
