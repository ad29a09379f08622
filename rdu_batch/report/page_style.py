"""The style of the report page: light, dark, narrow and printed; no script, nothing fetched."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--ground:#fff;--ink:#1c2024;--soft:#5c6570;--line:#dfe3e8;
--bar:#2f6fab;--bad:#a83a2a;--card:#f6f7f9;--k0:#8a6bb8;--k1:#3c9d9b;--k2:#d28f26;--k3:#2f6fab;
--k4:#5b9b4a;--k5:#c3cad2;--k6:#a83a2a}
@media (prefers-color-scheme:dark){:root{--ground:#14171a;--ink:#e7eaed;--soft:#a0a9b3;
--line:#30363d;--bar:#6ea8dc;--bad:#ef8f7f;--card:#1c2024;--k0:#ab90d6;--k1:#5cbcba;--k2:#e2aa52;
--k3:#6ea8dc;--k4:#84c173;--k5:#4a535d;--k6:#ef8f7f}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:56rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem;font-weight:600}
h2{font-size:1.1rem;margin:2.5rem 0 .75rem;font-weight:600}
h3{font-size:1rem;margin:1.25rem 0 .25rem;font-weight:600}
h1,h2,h3,p,td,th,li{overflow-wrap:anywhere}
p{margin:.3rem 0}
.soft,figcaption{color:var(--soft);font-size:.9rem}td .soft{font-size:.9em}
dl{display:grid;gap:.75rem;margin:1.5rem 0;--card:max(8rem,calc(2.1rem + var(--digits)*.8rem));
--most:calc((100% - (var(--columns) - 1)*.75rem)/var(--columns));
grid-template-columns:repeat(auto-fit,minmax(min(100%,max(var(--card),var(--most))),1fr))}
dl div{background:var(--card);border-radius:.5rem;padding:.75rem 1rem}
dt{color:var(--soft);font-size:.85rem}dd{margin:0;font-size:1.3rem;white-space:nowrap}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.35rem .75rem .35rem 0;border-bottom:1px solid var(--line);
vertical-align:top}
th{font-weight:500}td.n,th.n{text-align:right;padding-right:0;overflow-wrap:normal}
tr.on td{border-bottom:0;padding-bottom:0}tr.on+tr td{padding-top:0}
td.n+td.n,th.n+th.n{padding-left:.75rem}
figure{display:inline-block;width:min(100%,25rem);margin:.5rem 1.5rem .5rem 0}
@media (max-width:30rem){table{font-size:.8rem}td:first-child{min-width:5.5rem}
figure{margin-right:0}th,td{padding-right:.35rem}}
svg{display:block;width:100%;height:auto}
.wide{display:block;width:100%;max-width:30rem}
i[class^=k]{display:inline-block;width:.7rem;height:.7rem;border-radius:.15rem;margin-right:.5rem}
svg rect{fill:var(--bar)}svg text{fill:var(--soft);font-size:12px}
svg .k0{fill:var(--k0)}i.k0{background:var(--k0)}svg .k1{fill:var(--k1)}i.k1{background:var(--k1)}
svg .k2{fill:var(--k2)}i.k2{background:var(--k2)}svg .k3{fill:var(--k3)}i.k3{background:var(--k3)}
svg .k4{fill:var(--k4)}i.k4{background:var(--k4)}svg .k5{fill:var(--k5)}i.k5{background:var(--k5)}
svg .k6{fill:var(--k6)}i.k6{background:var(--k6)}
svg line{stroke:var(--line)}
ul{margin:.25rem 0;padding-left:1.25rem}
code{font:.85rem/1.45 ui-monospace,monospace;white-space:pre-wrap}
.bad{color:var(--bad)}
@media print{:root{color-scheme:light;--ground:#fff;--ink:#000;--soft:#444;--line:#bbb;
--bar:#2f6fab;--bad:#a83a2a;--card:#fff;--k0:#8a6bb8;--k1:#3c9d9b;--k2:#d28f26;--k3:#2f6fab;
--k4:#5b9b4a;--k5:#c3cad2;--k6:#a83a2a}main{max-width:none;padding:0}
figure,dl div,tr{break-inside:avoid}h2,h3{break-after:avoid}
svg rect,i{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
