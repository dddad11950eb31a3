// Frames of one video: the one that is looked at, all of them in a row, and where they lie on the video's time.
// Before there is a verdict nothing here tells which answer saw what.

import { clock, el } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const PLAY_EVERY_MS = 400;

export class Film {
  // framesS: in the order to be shown; segments: [[startS, endS]], called `inside`; lanes: [{name, mark, framesS}], what
  // each one saw; borrowed: {index: [videoId, momentS]}, frames that another video has in the place of this one's.
  constructor({ videoId, durationS, framesS, segments = [], inside = "in the segment", lanes = [], borrowed = {}, label }) {
    Object.assign(this, { videoId, durationS, framesS, segments, inside, lanes, borrowed, playing: 0 });
    this.large = el("img", { class: "large", alt: "", draggable: "false" });
    this.caption = el("p", { class: "moment" });
    this.strip = el("div", { class: "strip", role: "group", "aria-label": `${framesS.length} frames` });
    this.thumbs = framesS.map((moment, index) => this.thumb(moment, index));
    this.strip.append(...this.thumbs);
    this.large.addEventListener("error", () => this.fail());
    this.line = this.timeline();
    this.element = el("section", { class: "film", "aria-label": label }, this.large, this.caption, this.strip, this.line);
    const first = framesS.findIndex((moment) => this.isInside(moment));
    this.show(first < 0 ? 0 : first, false);
  }

  address(index, heightPx) {
    const [videoId, moment] = this.borrowed[index] ?? [this.videoId, this.framesS[index]];
    return `/frames/${videoId}/${Math.round(moment * 1000)}-${heightPx}.jpg`;
  }

  isInside(moment) {
    return this.segments.some(([start, end]) => moment >= start && moment < end);
  }

  thumb(moment, index) {
    const image = el("img", { alt: "", loading: "lazy", src: this.address(index, 160), height: 72 });
    const who = this.lanes.filter((lane) => lane.framesS.includes(moment));
    const marks = who.map((lane) => el("span", { class: `mark ${lane.mark}`, text: lane.name }));
    const seen = who.length ? `, seen for ${who.map((lane) => lane.name).join(" and ")}` : "";
    const inside = this.isInside(moment);
    return el(
      "button",
      {
        type: "button",
        class: inside ? "thumb is-inside" : "thumb",
        "aria-label": `Frame at ${clock(moment)}${inside ? `, ${this.inside}` : ""}${seen}`,
        on: { click: () => this.show(index) },
      },
      image,
      el("span", { class: "at", text: clock(moment) }),
      el("span", { class: "marks" }, ...marks),
    );
  }

  timeline() {
    const rows = Math.max(1, this.lanes.length);
    const height = 14 + 16 * rows;
    const svg = shape("svg", { class: "line", viewBox: `0 0 1000 ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    const x = (moment) => (1000 * moment) / this.durationS;
    for (const [start, end] of this.segments) {
      svg.append(shape("rect", { class: "segment", x: x(start), y: 0, width: Math.max(2, x(end) - x(start)), height }));
    }
    svg.append(shape("line", { class: "axis", x1: 0, x2: 1000, y1: height - 7, y2: height - 7 }));
    const lanes = this.lanes.length ? this.lanes : [{ mark: "any", framesS: this.framesS }];
    lanes.forEach((lane, number) => {
      for (const moment of lane.framesS) {
        const at = { x1: x(moment), x2: x(moment), y1: 3 + 16 * number, y2: 15 + 16 * number };
        svg.append(shape("line", { class: `tick ${lane.mark}`, ...at }));
      }
    });
    this.cursor = shape("line", { class: "cursor", y1: 0, y2: height });
    svg.append(this.cursor);
    svg.addEventListener("click", (event) => {
      const box = svg.getBoundingClientRect();
      this.showNear(((event.clientX - box.left) / box.width) * this.durationS);
    });
    const names = el("div", { class: "lane-names" }, ...this.lanes.map((lane) => el("span", { class: `mark ${lane.mark}`, text: lane.name })));
    const ends = el("div", { class: "ends" }, el("span", { text: clock(0) }), el("span", { text: clock(this.durationS) }));
    return el("div", { class: "timeline" }, names, el("div", {}, svg, ends));
  }

  show(index, scroll = true) {
    if (index < 0 || index >= this.framesS.length) return;
    this.thumbs[this.at]?.removeAttribute("aria-current");
    this.at = index;
    const moment = this.framesS[index];
    this.large.src = this.address(index, 540);
    this.large.alt = `The video at ${clock(moment)}`;
    const segment = this.isInside(moment) ? `, ${this.inside}` : "";
    this.caption.textContent = `${clock(moment)} of ${clock(this.durationS)}${segment} · frame ${index + 1} of ${this.framesS.length}`;
    this.thumbs[index].setAttribute("aria-current", "true");
    const place = (1000 * moment) / this.durationS;
    this.cursor.setAttribute("x1", place);
    this.cursor.setAttribute("x2", place);
    if (scroll) this.center();
  }

  center() {
    const thumb = this.thumbs[this.at];
    if (thumb) this.strip.scrollLeft = thumb.offsetLeft - this.strip.offsetLeft - (this.strip.clientWidth - thumb.offsetWidth) / 2;
  }

  showNear(moment) {
    const distances = this.framesS.map((one) => Math.abs(one - moment));
    this.show(distances.indexOf(Math.min(...distances)));
  }

  step(by) {
    this.stop();
    this.show(this.at + by);
  }

  play() {
    if (this.playing) return this.stop();
    if (this.at === this.framesS.length - 1) this.show(0);
    this.playing = setInterval(() => {
      if (this.at === this.framesS.length - 1) this.stop();
      else this.show(this.at + 1);
    }, PLAY_EVERY_MS);
  }

  stop() {
    clearInterval(this.playing);
    this.playing = 0;
  }

  fail() {
    this.caption.textContent = "This frame cannot be shown: the video is not there, or cannot be decoded.";
  }
}

function shape(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
