/** How every chart of the report is drawn: as SVG text that needs no script and takes its colours from the page. */
import type { TopLevelSpec } from "vega-lite";

// The page's stylesheet gives these names a value each for a light and for a dark screen.
export const INK = "var(--ink)";
export const FAINT = "var(--faint)";
const GRID = "var(--grid)";
const COLORS = 8;

/** Colour of the i-th series. */
export const seriesColor = (i: number): string => `var(--c${(i % COLORS) + 1})`;

/** Of a chart that shares its row with another; a wide one has a row of its own. */
export const HALF = { width: 430, height: 190 } as const;
export const WIDE = { width: 940, height: 330 } as const;

/** A vega-lite chart as an SVG element. */
export async function draw(spec: TopLevelSpec): Promise<string> {
  // Not at the top: the bundle is CommonJS, which cannot require modules that await while they load.
  const [vega, { compile }] = await Promise.all([import("vega"), import("vega-lite")]);
  const config = {
    font: "system-ui, sans-serif",
    background: "transparent",
    view: { stroke: null },
    axis: {
      labelColor: FAINT,
      titleColor: FAINT,
      gridColor: GRID,
      domainColor: GRID,
      tickColor: GRID,
      titleFontWeight: "normal",
      labelFontSize: 11,
      titleFontSize: 11,
    },
  } as const;
  const { spec: compiled } = compile({ ...spec, config });
  return new vega.View(vega.parse(compiled), { renderer: "none" }).toSVG();
}

/** The colour channel: field `series`, coloured in the given order. Legends are the page's work. */
export const colorBy = (series: readonly string[]) =>
  ({
    field: "series",
    type: "nominal",
    scale: { domain: [...series], range: series.map((_, i) => seriesColor(i)) },
    legend: null,
  }) as const;
