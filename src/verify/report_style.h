// The style sheet of a verification report's page: narrow and wide, light and dark, on paper.
#pragma once

namespace optp {

inline constexpr char kReportStyle[] = R"css(
:root {
  --page: #f4f5f7; --card: #ffffff; --ink: #1b1f24; --soft: #5b6470; --line: #dfe3e8;
  --pass: #14713f; --pass-back: #e3f4ea; --fail: #b3211b; --fail-back: #fdeae8; --track: #e9ecf0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #101317; --card: #191e24; --ink: #e7eaee; --soft: #9aa5b1; --line: #2d343d;
    --pass: #5fce93; --pass-back: #14301f; --fail: #ff8d83; --fail-back: #3d1a18; --track: #2a313a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  -webkit-text-size-adjust: 100%;
}
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1.25rem 3rem; }
h1 { margin: 0 0 1rem; font-size: 1rem; font-weight: 600; color: var(--soft); }
h2 { margin: 0; font-size: 1.15rem; line-height: 1.3; }
p { margin: 0; }
a { color: inherit; }
.soft { color: var(--soft); }
.card {
  margin-top: 1rem; padding: 1.25rem 1.5rem; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
}
.pass { color: var(--pass); }
.fail { color: var(--fail); }
.hero { border-width: 2px; border-color: currentColor; }
.hero.pass { background: var(--pass-back); }
.hero.fail { background: var(--fail-back); }
.hero .verdict + p { font-size: 1.15rem; font-weight: 600; }
.hero .verdict { font-size: clamp(2.2rem, 7vw, 3.2rem); font-weight: 750; line-height: 1.1; }
.hero p + p { margin-top: .4rem; color: var(--ink); overflow-wrap: anywhere; }
.badge {
  display: inline-block; padding: .1rem .6rem; border-radius: 99px; font-size: .85rem; font-weight: 650; white-space: nowrap;
  color: var(--soft); background: var(--track);
}
.badge.pass { color: var(--pass); background: var(--pass-back); }
.badge.fail { color: var(--fail); background: var(--fail-back); }
ul { margin: .75rem 0 0; padding: 0; list-style: none; }
li { display: flex; gap: .75rem; align-items: baseline; padding: .3rem 0; overflow-wrap: anywhere; }
li .badge { flex: 0 0 5.6rem; text-align: center; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1.5rem; margin: .75rem 0 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.check { scroll-margin-top: 1rem; }
.check.failed { border-left: 4px solid var(--fail); }
.check header { display: flex; flex-wrap: wrap; gap: .25rem .75rem; align-items: baseline; }
.error { margin-top: .75rem; padding: .6rem .9rem; border-radius: 8px; color: var(--fail); background: var(--fail-back);
  overflow-wrap: anywhere; }
table { width: 100%; margin-top: .9rem; border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th { padding: 0 .6rem .35rem; color: var(--soft); font-weight: 500; font-size: .82rem; text-align: right;
  vertical-align: bottom; line-height: 1.25; }
td { padding: .5rem .6rem; border-top: 1px solid var(--line); text-align: right; vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; text-align: left; white-space: normal; overflow-wrap: anywhere; }
th:last-child, td:last-child { padding-right: 0; }
td:first-child { width: 40%; }
td small { display: block; color: var(--soft); font-size: .85rem; line-height: 1.4; }
tr.failed td { background: var(--fail-back); }
tr.failed td:first-child { box-shadow: inset 4px 0 var(--fail); padding-left: .75rem; }
tr.failed td:last-child { padding-right: .5rem; }
svg { display: block; margin: .45rem 0 .1rem auto; overflow: visible; }
.track { fill: var(--track); }
.fill { fill: currentColor; }
.tick { stroke: var(--card); stroke-width: 1; }
.limit { stroke: var(--ink); stroke-width: 2; }
@media (max-width: 46rem) {
  main { padding: 1.25rem .75rem 2rem; }
  .card { padding: 1rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, tbody { display: block; }
  tr { display: grid; grid-template-columns: 1fr 1fr; gap: .3rem 1rem; padding: .75rem 0; border-top: 1px solid var(--line); }
  td, td:first-child, td:last-child { width: auto; padding: 0; border: 0; text-align: left; }
  td:first-child { grid-column: 1 / -1; font-weight: 600; }
  td small { font-weight: 400; }
  td:last-child { align-self: center; }
  td[data-label]::before { content: attr(data-label); display: block; color: var(--soft); font-size: .78rem; }
  tr.failed { margin: 0 -1rem; padding-left: .75rem; padding-right: 1rem; background: var(--fail-back);
    border-left: 4px solid var(--fail); }
  tr.failed td, tr.failed td:first-child { padding: 0; background: none; box-shadow: none; }
  svg { margin-left: 0; }
}
@media print {
  body { background: #fff; }
  .card { break-inside: avoid; }
}
)css";

}  // namespace optp
