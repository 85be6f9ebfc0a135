/** The report's stylesheet: one column, light or dark as the reader's screen is set. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f7f8fa; --ink: #1d2230; --faint: #667085; --grid: #e3e6ec; --accent: #dbe6fb;
  --good: #1a7f4b; --bad: #b93838;
  --c1: #2f6fd0; --c2: #d9722a; --c3: #23966a; --c4: #9a4fb5; --c5: #c0342f; --c6: #7a6a20; --c7: #5b6472; --c8: #0f8a99;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14161b; --card: #1c1f26; --ink: #e6e8ee; --faint: #99a1b0; --grid: #2d323c; --accent: #263a5e;
    --good: #4cc38a; --bad: #f07a72;
    --c1: #6fa3f5; --c2: #f09a5a; --c3: #4cc38a; --c4: #c98ae0; --c5: #f07a72; --c6: #cbb75a; --c7: #a3acba; --c8: #4fc3d0;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 28px 72px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 44px 0 6px; padding-top: 16px; border-top: 1px solid var(--grid); }
h3 { font-size: 14px; margin: 18px 0 2px; font-weight: 600; }
p { margin: 4px 0 12px; color: var(--faint); max-width: 76ch; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-size: 12px; font-weight: 600; color: var(--faint); }
th, td { padding: 7px 12px; border-bottom: 1px solid var(--grid); vertical-align: top; }
th.number, td.number { text-align: right; white-space: nowrap; }
td.share { background: linear-gradient(to right, var(--accent) var(--share), transparent var(--share)) no-repeat 0 50% / 100% 60%; }
tr.final td { font-weight: 600; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)); gap: 18px 24px; }
figure { margin: 8px 0 0; background: var(--card); border: 1px solid var(--grid); border-radius: 8px; padding: 12px 14px 8px; }
figcaption { font-size: 13px; font-weight: 600; margin-bottom: 6px; display: flex; flex-wrap: wrap; gap: 2px 14px; }
.series { font-weight: 400; color: var(--faint); }
.series::before { content: ""; display: inline-block; width: 14px; height: 3px; border-radius: 2px; background: var(--color);
  margin-right: 6px; vertical-align: middle; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.45 ui-monospace, monospace; }
.right, .wrong { white-space: nowrap; font-weight: 600; font-size: 13px; }
.right { color: var(--good); }
.wrong { color: var(--bad); }
pre { background: var(--card); border: 1px solid var(--grid); border-radius: 8px; padding: 14px 16px; overflow: auto;
  font: 13px/1.5 ui-monospace, monospace; }
@media print { figure, tr { break-inside: avoid; } }
`;
