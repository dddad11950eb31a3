// A list of any length: positions are known at once, rows are fetched and drawn only where one looks.

import { ask, el } from "./dom.js";

const ROW_PX = 58;
const BATCH = 100;

export class List {
  constructor(box, onSelect) {
    this.box = box;
    this.onSelect = onSelect;
    this.inside = el("div", { class: "rows" });
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(box);
  }

  // Show these positions; `address` gives rows, `render` draws one.
  show(positions, address, render) {
    Object.assign(this, { positions, address, render, rows: new Map(), asked: new Set(), at: -1 });
    this.inside.replaceChildren();
    this.inside.style.height = `${positions.length * ROW_PX}px`;
    this.box.replaceChildren(this.inside);
    this.box.scrollTop = 0;
    this.draw();
    if (positions.length) this.select(0);
    else this.onSelect(null);
  }

  select(index) {
    if (index < 0 || index >= this.positions.length) return false;
    this.at = index;
    const top = index * ROW_PX;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    const bottom = top + ROW_PX - this.box.clientHeight;
    if (bottom > this.box.scrollTop) this.box.scrollTop = bottom;
    this.draw();
    this.onSelect(this.positions[index]);
    return true;
  }

  move(by) {
    return this.select(this.at + by);
  }

  // What is known of a row has changed.
  update(position, changes) {
    const row = this.rows.get(position);
    if (row) Object.assign(row, changes);
    this.draw();
  }

  draw() {
    if (!this.positions) return;
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW_PX) - 5);
    const last = Math.min(this.positions.length, first + Math.ceil(this.box.clientHeight / ROW_PX) + 10);
    this.fetch(first, last);
    const drawn = [];
    for (let index = first; index < last; index++) {
      const row = this.rows.get(this.positions[index]);
      const chosen = index === this.at;
      const element = el(
        "div",
        { role: "option", class: "row", id: `row-${index}`, "aria-selected": String(chosen), on: { click: () => this.select(index) } },
        ...(row ? this.render(row) : []),
      );
      element.style.transform = `translateY(${index * ROW_PX}px)`;
      drawn.push(element);
    }
    this.inside.replaceChildren(...drawn);
    if (this.at >= 0) this.box.setAttribute("aria-activedescendant", `row-${this.at}`);
  }

  async fetch(first, last) {
    for (let batch = Math.floor(first / BATCH); batch * BATCH < last; batch++) {
      if (this.asked.has(batch)) continue;
      this.asked.add(batch);
      const { positions, rows, address, asked } = this;
      const wanted = positions.slice(batch * BATCH, (batch + 1) * BATCH);
      try {
        for (const row of await ask(address, { at: wanted.join(",") })) rows.set(row.position, row);
      } catch (error) {
        asked.delete(batch); // the next look asks again
        throw error;
      }
      if (rows === this.rows) this.draw();
    }
  }
}
