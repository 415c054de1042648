// Small charts in SVG, drawn anew for each reading. A chart is looked at with the mouse, a finger or the arrow keys.

const SVG = "http://www.w3.org/2000/svg";
const LABELS_WIDTH = 360;
const MARGIN = { left: 34, right: 6, top: 8, bottom: 20 };

function element(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

// The smallest of 1, 2, 5 times a power of ten, and of `least`, that holds `value`.
function ceiling(value, least) {
  let step = least;
  for (let next = 0; step < value; next += 1) step *= [2, 2.5, 2][next % 3];
  return step;
}

class Chart {
  // `columns` data points share the width; `describe(index)` is the text shown while one is looked at.
  constructor(figure) {
    this.plot = figure.querySelector(".plot");
    this.readout = figure.querySelector(".readout");
    this.svg = element("svg", { role: "img", tabindex: "0", "aria-label": "No reading yet" });
    this.plot.append(this.svg);
    this.columns = 1;
    this.looked = null;
    this.svg.addEventListener("pointermove", (event) => this.look(this.columnAt(event)));
    this.svg.addEventListener("pointerleave", () => this.look(null));
    this.svg.addEventListener("blur", () => this.look(null));
    this.svg.addEventListener("keydown", (event) => this.step(event));
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  columnAt(event) {
    const x = event.clientX - this.svg.getBoundingClientRect().left - MARGIN.left;
    return Math.max(0, Math.min(this.columns - 1, Math.floor(x / this.columnWidth)));
  }

  step(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    this.look(Math.max(0, Math.min(this.columns - 1, (this.looked ?? this.columns) + move)));
  }

  look(column) {
    this.looked = column;
    this.draw();
  }

  update(data) {
    this.data = data;
    this.draw();
  }

  draw() {
    if (!this.data || !this.plot.clientWidth) return;
    this.width = this.plot.clientWidth - MARGIN.left - MARGIN.right;
    this.height = this.plot.clientHeight - MARGIN.top - MARGIN.bottom;
    this.columnWidth = this.width / this.columns;
    this.svg.setAttribute("viewBox", `0 0 ${this.plot.clientWidth} ${this.plot.clientHeight}`);
    const shapes = this.shapes();
    if (this.looked !== null) {
      const x = this.x(this.looked);
      shapes.push(element("rect", { class: "cursor", x, y: MARGIN.top, width: this.columnWidth, height: this.height }));
    }
    this.svg.replaceChildren(...shapes);
    this.readout.textContent = this.looked === null ? this.summary() : this.describe(this.looked);
    this.svg.setAttribute("aria-label", this.readout.textContent);
  }

  x(column) {
    return MARGIN.left + column * this.columnWidth;
  }

  y(share) {
    return MARGIN.top + this.height * (1 - share);
  }

  grid(labels) {
    return labels.flatMap(([share, label]) => [
      element("line", {
        class: "grid", x1: MARGIN.left, x2: MARGIN.left + this.width, y1: this.y(share), y2: this.y(share),
      }),
      element("text", { x: MARGIN.left - 6, y: this.y(share) + 4, "text-anchor": "end" }, label),
    ]);
  }

  axisLabel(x, anchor, label) {
    return element("text", { x, y: MARGIN.top + this.height + 15, "text-anchor": anchor }, label);
  }

  bar(series, x, width, from, to) {
    const height = Math.max((to - from) * this.height, 1);
    return element("rect", { class: series, x, y: this.y(to), width, height, rx: Math.min(2, width / 3) });
  }
}

// Over time: `data` is {series: {name: [count of each slot]}, slotSeconds, now, summary, describe}.
class TimeChart extends Chart {
  timeAxis() {
    const seconds = this.columns * this.data.slotSeconds;
    const ticks = [[0, "start"], [0.5, "middle"], [1, "end"]];
    return ticks.map(([share, anchor]) => {
      const ago = Math.round((seconds * (1 - share)) / 6) / 10;
      return this.axisLabel(MARGIN.left + share * this.width, anchor, ago ? `${ago} min ago` : "now");
    });
  }

  summary() {
    return this.data.summary;
  }

  describe(column) {
    return this.data.describe(column);
  }
}

export class StackedBars extends TimeChart {
  shapes() {
    const entries = Object.entries(this.data.series);
    this.columns = entries[0][1].length;
    this.columnWidth = this.width / this.columns;
    const totals = entries[0][1].map((_, column) => entries.reduce((sum, [, counts]) => sum + counts[column], 0));
    const top = ceiling(Math.max(...totals), 4);
    const shapes = [...this.grid([[0, "0"], [0.5, `${top / 2}`], [1, `${top}`]]), ...this.timeAxis()];
    const gap = Math.min(2, this.columnWidth * 0.2);
    for (let column = 0; column < this.columns; column += 1) {
      let below = 0;
      for (const [name, counts] of entries) {
        if (!counts[column]) continue;
        const above = below + counts[column];
        shapes.push(this.bar(name, this.x(column) + gap / 2, this.columnWidth - gap, below / top, above / top));
        below = above;
      }
    }
    return shapes;
  }
}

export class Area extends TimeChart {
  shapes() {
    const values = this.data.series.tokens;
    this.columns = values.length;
    this.columnWidth = this.width / this.columns;
    const top = ceiling(Math.max(...values), 10);
    const points = values.map((value, column) => `${this.x(column) + this.columnWidth / 2},${this.y(value / top)}`);
    const ends = [`${this.x(this.columns - 0.5)},${this.y(0)}`, `${this.x(0.5)},${this.y(0)}`];
    return [
      ...this.grid([[0, "0"], [0.5, `${top / 2}`], [1, `${top}`]]),
      ...this.timeAxis(),
      element("polygon", { class: "area", points: [...points, ...ends].join(" ") }),
      element("polyline", { class: "line", points: points.join(" ") }),
    ];
  }
}

// By duration: `data` is {series: {name: [count of each bin]}, ticks: [[bin, label]], summary, describe}. Each series is
// shown in shares of its own sum, so that a thousand hits do not hide ten misses.
export class Histogram extends Chart {
  shapes() {
    const entries = Object.entries(this.data.series);
    this.columns = entries[0][1].length;
    this.columnWidth = this.width / this.columns;
    const every = this.width < LABELS_WIDTH ? 2 : 1;
    const shapes = [
      ...this.grid([[0, "0%"], [0.5, "50%"], [1, "100%"]]),
      ...this.data.ticks.filter((_, index) => index % every === 0).map(([bin, label]) => this.axisLabel(this.x(bin), "middle", label)),
    ];
    const wide = (this.columnWidth * 0.86) / entries.length;
    entries.forEach(([name, counts], index) => {
      const sum = counts.reduce((total, value) => total + value, 0);
      counts.forEach((value, column) => {
        const x = this.x(column) + this.columnWidth * 0.07 + index * wide;
        if (value) shapes.push(this.bar(name, x, wide, 0, value / sum));
      });
    });
    return shapes;
  }

  summary() {
    return this.data.summary;
  }

  describe(column) {
    return this.data.describe(column);
  }
}
