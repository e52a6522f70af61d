"""The look of the parity page."""

CSS = """
:root { --paper:#f6f5f1; --card:#fffefb; --ink:#1d2125; --soft:#6a7178; --line:#e2dfd6; --track:#ebe8df;
  --good:#1f7a4d; --good-bg:#e3f3e9; --bad:#b3261e; --bad-bg:#fbe9e7; --heat:#24509e; --drift:#b05a00; }
@media (prefers-color-scheme: dark) { :root { --paper:#14171a; --card:#1c2024; --ink:#e8e6e1; --soft:#9aa2aa;
  --line:#2d3238; --track:#2a2f35; --good:#5fcb91; --good-bg:#17301f; --bad:#ff8a80; --bad-bg:#3a1c1a;
  --heat:#86b1ff; --drift:#ffb562; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--paper); color:var(--ink); -webkit-text-size-adjust:100%;
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif; }
main { max-width:980px; margin:0 auto; padding:28px 16px 48px; }
h1 { font-size:1.9rem; line-height:1.15; margin:0 0 .5rem; overflow-wrap:anywhere; letter-spacing:-.02em; }
h2 { font-size:1.1rem; margin:0; display:flex; align-items:center; gap:.5rem; }
h2 small { margin-left:auto; font-weight:400; color:var(--soft); font-size:.82rem; }
h3 { font-size:.82rem; font-weight:600; margin:0 0 .4rem; color:var(--soft); }
p { margin:.3rem 0; }
.over { text-transform:uppercase; letter-spacing:.12em; font-size:.72rem; color:var(--soft); margin:0; }
.verdict { display:inline-block; padding:.35rem .8rem; border-radius:8px; font-weight:650; }
.verdict.pass { background:var(--good-bg); color:var(--good); }
.verdict.fail { background:var(--bad-bg); color:var(--bad); }
.rungs { display:flex; flex-wrap:wrap; gap:.4rem; list-style:none; padding:0; margin:.9rem 0; }
.rungs a { display:block; padding:.25rem .7rem; border:1px solid var(--line); border-radius:99px;
  background:var(--card); color:inherit; text-decoration:none; font-size:.88rem; }
.rungs a:hover, .rungs a:focus-visible { border-color:var(--soft); }
dl { margin:.6rem 0 0; display:grid; gap:.25rem; }
dl > div { display:grid; grid-template-columns:7.5rem 1fr; gap:.6rem; }
dt { color:var(--soft); } dd { margin:0; overflow-wrap:anywhere; }
section { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:16px 18px;
  margin-top:14px; scroll-margin-top:12px; }
section.fail { border-color:var(--bad); }
.meaning, .note, .gate, footer { color:var(--soft); font-size:.88rem; }
.mark { font-weight:700; } .mark.pass, .value.pass { color:var(--good); } .mark.fail, .value.fail { color:var(--bad); }
.mark.skip { color:var(--soft); }
.finding { background:var(--bad-bg); border-radius:8px; padding:.7rem .9rem; font-size:.92rem; }
.checks { margin-top:.7rem; display:grid; gap:.35rem; }
.check { display:grid; grid-template-columns:13rem minmax(60px,1fr) 12rem 8.5rem; gap:.8rem; align-items:center; }
.value { font-variant-numeric:tabular-nums; } .check .gate { text-align:right; font-variant-numeric:tabular-nums; }
.plot { display:flex; gap:8px; min-width:0; } .bar { width:100%; height:10px; display:block; min-width:0; }
.track { fill:var(--track); } .good { fill:var(--good); } .bad { fill:var(--bad); } .tick { fill:var(--ink); }
.heat { fill:var(--heat); } .drift { fill:var(--drift); }
.ring { fill:none; stroke:var(--card); stroke-width:2; }
details { margin-top:.7rem; } summary { cursor:pointer; color:var(--soft); font-size:.9rem; }
.samples { display:grid; gap:.2rem; margin-top:.5rem; font-size:.88rem; }
.sample { display:grid; grid-template-columns:2.4rem minmax(0,15rem) minmax(60px,1fr) 6rem; gap:.6rem;
  align-items:center; }
.sample .name { overflow:hidden; text-overflow:ellipsis; white-space:nowrap; }
.sample .index { color:var(--soft); font-variant-numeric:tabular-nums; }
.sample .value { text-align:right; white-space:nowrap; }
.sample .remark { grid-column:2 / -1; color:var(--soft); overflow-wrap:anywhere; }
.pictures { display:grid; grid-template-columns:repeat(auto-fill,minmax(260px,1fr)); gap:14px; margin-top:.8rem; }
figure { margin:0; min-width:0; } .pair { display:flex; flex-wrap:wrap; gap:6px; align-items:flex-start; }
.pair img { flex:none; border-radius:6px; background:
  repeating-conic-gradient(var(--track) 0 25%, transparent 0 50%) 0 0 / 14px 14px; }
.pair img.crop { max-height:112px; min-height:72px; width:auto; outline:2px solid var(--line); outline-offset:-1px; }
figcaption { font-size:.85rem; margin-top:.35rem; overflow-wrap:anywhere; } figcaption span { display:block; }
.maps { display:flex; flex-wrap:wrap; gap:18px 26px; margin-top:.8rem; } .mapbox { min-width:0; max-width:100%; }
.scroll { overflow-x:auto; } .map { display:block; } .map text { fill:var(--soft); font-size:9px; }
.texts { columns:2 300px; padding:0 0 0 2.2rem; margin:.9rem 0 0; font-size:.85rem; }
.texts li { overflow-wrap:anywhere; break-inside:avoid; }
.texts span { display:-webkit-box; -webkit-box-orient:vertical; -webkit-line-clamp:2; overflow:hidden; }
.texts li::marker { color:var(--soft); }
footer { margin-top:18px; }
@media (max-width:640px) {
  main { padding:18px 10px 36px; } section { padding:13px 12px; } dl > div { grid-template-columns:1fr; gap:0; }
  .check { grid-template-columns:1fr auto; gap:.1rem .8rem; } .check .plot { grid-column:1 / -1; grid-row:2; }
  .check .plot:empty { display:none; } .check .gate { grid-column:1 / -1; font-size:.8rem; }
  .sample { grid-template-columns:2.2rem minmax(0,1fr) 5.4rem; } .sample .plot { grid-column:2 / -1; grid-row:2; }
  .sample .plot:empty { display:none; } }
@media print { body { background:none; } section { break-inside:avoid; } }
"""
