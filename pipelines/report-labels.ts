/** Where the labels of a scatter plot go, so that they cover neither each other nor a point. */

/** In pixels from the plot's upper left corner; a bar reaches so far above and below the point. */
export type LabelPoint = { x: number; y: number; reach: number; text: string };
export type PlacedLabel = { x: number; y: number; text: string; align: "left" | "right" | "center" };

type Box = { left: number; right: number; top: number; bottom: number };

const FONT_SIZE = 12;
const GAP = 10;
/** Of an average letter, for a font whose width is not known here. */
const LETTER_WIDTH = 0.56 * FONT_SIZE;

/**
 * One label a point: to its right, to its left, below, above, or further up and down; the first place that is free.
 * Returns the labels' own anchors (vertical middle), in the order of the points.
 */
export function placeLabels(points: readonly LabelPoint[], width: number, height: number): PlacedLabel[] {
  const taken: Box[] = points.flatMap(({ x, y, reach }) => [
    { left: x - 6, right: x + 6, top: y - 6, bottom: y + 6 },
    { left: x - 1, right: x + 1, top: y - reach, bottom: y + reach },
  ]);
  return points.map((point) => {
    const candidates = candidatesFor(point);
    const isFree = (label: PlacedLabel) => {
      const box = boxOf(label);
      const isInside = box.left >= 0 && box.right <= width && box.top >= 0 && box.bottom <= height;
      return isInside && !taken.some((other) => overlap(box, other));
    };
    const chosen = candidates.find(isFree) ?? candidates[0]!;
    taken.push(boxOf(chosen));
    return chosen;
  });
}

function candidatesFor({ x, y, text }: LabelPoint): PlacedLabel[] {
  const sides = [
    { x: x + GAP, align: "left" },
    { x: x - GAP, align: "right" },
  ] as const;
  const rows = [0, 1, -1, 2, -2].flatMap((row) => sides.map((side) => ({ ...side, y: y + row * FONT_SIZE, text })));
  const stacked = [1.5, -1.5].map((row) => ({ x, y: y + row * FONT_SIZE, text, align: "center" as const }));
  return [...rows.slice(0, 2), ...stacked, ...rows.slice(2)];
}

function boxOf({ x, y, text, align }: PlacedLabel): Box {
  const width = text.length * LETTER_WIDTH;
  const left = align === "left" ? x : align === "right" ? x - width : x - width / 2;
  return { left, right: left + width, top: y - FONT_SIZE / 2, bottom: y + FONT_SIZE / 2 };
}

const overlap = (a: Box, b: Box) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
