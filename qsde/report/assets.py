"""Style sheet and script of the report."""

CSS = """
:root { --ink:#1c2733; --soft:#5d6b7a; --line:#dfe4e9; --paper:#fff; --accent:#1668b8; }
* { box-sizing:border-box; }
body { margin:0; background:#f3f5f7; color:var(--ink); font:14px/1.5 "Helvetica Neue",Helvetica,Arial,sans-serif; }
main { max-width:1180px; margin:24px auto; background:var(--paper); padding:36px 44px 48px;
       box-shadow:0 1px 4px rgba(20,30,40,.12); }
header { border-bottom:2px solid var(--ink); padding-bottom:14px; margin-bottom:18px; }
h1 { font-size:27px; line-height:1.2; margin:0 0 4px; letter-spacing:-.01em; }
h2 { font-size:17px; margin:38px 0 6px; padding-top:10px; border-top:1px solid var(--line); }
h3 { font-size:14px; margin:18px 0 4px; }
p { margin:6px 0 10px; max-width:80ch; }
.meta, .note, footer { color:var(--soft); font-size:12.5px; }
.verdict { font-size:16px; max-width:none; }
.badge { display:inline-block; padding:1px 8px; border-radius:9px; font-size:12px; font-weight:600; }
.good { background:#e0f1e5; color:#1d6b38; }
.bad { background:#fbe3df; color:#a32a1b; }
.flag { color:#a35a00; font-weight:600; }
.warnings { background:#fff8e6; border-left:4px solid #e0a030; padding:8px 14px; margin:14px 0; }
.warnings ul { margin:4px 0; padding-left:18px; }
table { border-collapse:collapse; margin:8px 0 12px; font-variant-numeric:tabular-nums; }
th, td { padding:4px 12px; text-align:right; border-bottom:1px solid var(--line); vertical-align:top; }
th { font-weight:600; border-bottom:1.5px solid var(--ink); vertical-align:bottom; }
th.text, td.text { text-align:left; }
td small { color:var(--soft); }
td small.flag { color:#a35a00; }
.quality td.text, .parameters td.text:nth-child(2) { color:var(--soft); }
.dense { font-size:12px; width:100%; }
.dense th, .dense td { padding:2px 8px; }
.correlation { font-size:12px; }
.correlation td { padding:2px 3px; border:0; text-align:center; }
.correlation th { font-weight:400; border-bottom:1px solid var(--line); }
.correlation td span { display:block; min-width:46px; padding:2px 5px; }
code { font:12px/1.4 SFMono-Regular,Menlo,Consolas,monospace; }
.columns { display:flex; flex-wrap:wrap; gap:8px 48px; }
.figure { width:100%; }
.control { margin:8px 0; }
select { font:inherit; padding:2px 6px; }
details summary { cursor:pointer; color:var(--accent); margin:6px 0; }
footer { margin-top:36px; border-top:1px solid var(--line); padding-top:10px; }
@page { size:A4; margin:12mm; }
@media print {
  body { background:#fff; font-size:11px; }
  main { margin:0; padding:0; box-shadow:none; max-width:none; }
  .control button { display:none; }
  .figure, tr, .warnings { break-inside:avoid; }
  h2, h3, .note, .control { break-after:avoid; }
  .modebar { display:none; }
  .dense { font-size:9.5px; }
}
"""

SCRIPT = """
"use strict";
const report = JSON.parse(document.getElementById("report-data").textContent);
const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
for (const [id, figure] of Object.entries(report.figures)) {
  Plotly.newPlot(id, figure.data, figure.layout, config);
}
const choice = document.getElementById("expiry");
function drawExpiry() {
  const figure = report.expiries[Number(choice.value)];
  Plotly.react("one-expiry", figure.data, Object.assign({}, report.layout), config);
}
choice.addEventListener("change", drawExpiry);
document.getElementById("earlier").addEventListener("click", () => {
  choice.selectedIndex = Math.max(choice.selectedIndex - 1, 0); drawExpiry();
});
document.getElementById("later").addEventListener("click", () => {
  choice.selectedIndex = Math.min(choice.selectedIndex + 1, choice.length - 1); drawExpiry();
});
drawExpiry();
const plots = () => document.querySelectorAll(".figure");
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach(d => { d.open = true; });
  plots().forEach(p => Plotly.relayout(p, { width: 700 }));
});
window.addEventListener("afterprint", () => plots().forEach(p => Plotly.relayout(p, { width: null, autosize: true })));
"""
