// Evaluation browser: a question as it was put, what is right, and what each model said and how sure it was.

import { ask, el, said, words } from "./dom.js";
import { Film } from "./film.js";

const CHANGES = { gained: "▲", lost: "▼", "both right": "✓", "both wrong": "✕", "one model": "·" };
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

export class ItemView {
  constructor(card, list) {
    Object.assign(this, { card, list, name: "items", keys: [] });
    this.fields = [
      ["change", "Change"],
      ["benchmark", "Benchmark"],
      ["duration_group", "Duration"],
      ["condition", "Condition"],
      ["method", "Method"],
    ];
  }

  defaults(choices) {
    return { condition: choices.condition.includes("full") ? "full" : "", method: choices.method.includes("logprob") ? "logprob" : "" };
  }

  row(row) {
    return [
      el("span", { class: "sign", text: CHANGES[row.change], title: row.change, "aria-label": row.change }),
      said("span", row.question, { class: "question" }),
      el("span", { class: "meta", text: [row.benchmark, row.detail].filter(Boolean).join(" · ") }),
    ];
  }

  async open(position) {
    const card = await ask(`/api/items/${position}`);
    if (this.list.positions[this.list.at] !== position) return;
    this.draw(card);
    const look = await ask(`/api/items/${position}/look`);
    if (this.shown === card) this.drawFrames(look);
  }

  draw(card) {
    this.shown = card;
    this.film?.stop();
    this.film = null;
    this.frames = el("p", { class: "meta", text: "Looking at the video …" });
    const way = [card.condition !== "full" ? words(card.condition) : "", card.method === "generation" ? "written answer" : "log-probabilities"];
    const where = [card.benchmark, card.duration_group, card.category, ...way].filter(Boolean).join(" · ");
    this.card.replaceChildren(
      el("p", { class: "meta" }, el("span", { class: "change", text: `${CHANGES[card.change]} ${card.change}` }), ` · ${where}`),
      said("h2", card.question || card.item_id),
      ...card.defects.map((defect) => said("p", `This question is known to be defective: ${defect}`, { class: "problem" })),
      card.options.length ? this.options() : this.free(),
      this.models(),
      this.frames,
      el("p", { class: "meta" }, "item ", said("code", card.item_id), " · video ", said("code", card.video)),
    );
  }

  options() {
    const { options, gold, said: models } = this.shown;
    const roles = Object.keys(models);
    const shares = Object.fromEntries(roles.map((role) => [role, softmax(models[role].option_logprobs)]));
    const rows = options.map((option, number) => {
      const bars = roles.filter((role) => shares[role].length).map((role) => {
        const logprob = models[role].option_logprobs[number];
        const picked = models[role].predicted === number;
        const bar = el("span", { class: `bar of-${role}` });
        const share = 100 * shares[role][number];
        bar.style.width = `${share}%`;
        const value = `${share.toFixed(0)} % · ${logprob.toFixed(2)}${picked ? " · its answer" : ""}`;
        return el("div", { class: "bar-line" }, el("span", { text: role }), el("span", { class: "bar-box" }, bar), el("span", { text: value }));
      });
      const whose = roles.filter((role) => !shares[role].length && models[role].predicted === number);
      if (whose.length) bars.push(el("p", { class: "meta", text: `the answer of ${whose.join(" and ")}` }));
      const right = number === gold;
      return el(
        "li",
        { class: right ? "option is-right" : "option" },
        el("p", {}, el("b", { text: `${LETTERS[number] ?? number + 1}  ` }), said("span", option), right ? el("span", { class: "right", text: "✓ right" }) : null),
        ...bars,
      );
    });
    const scored = roles.some((role) => models[role].option_logprobs.length);
    const legend = scored ? "Bars: share of probability among the options. Numbers: that share, and the log-probability in nats." : "";
    return el("div", {}, el("ol", { class: "options" }, ...rows), el("p", { class: "meta", text: legend }));
  }

  free() {
    const { reference, spans_s: spans } = this.shown;
    const right = reference || spans.map(([start, end]) => `${start} to ${end} s`).join(", ");
    return right ? el("p", {}, el("b", { text: "Right: " }), said("span", right)) : el("p", { class: "meta", text: "The benchmark's own text is not here." });
  }

  models() {
    const models = Object.values(this.shown.said);
    const wrote = models.some((one) => one.text);
    const told = models.some((one) => one.status !== "ok" || one.detail);
    const rows = Object.entries(this.shown.said).map(([role, one]) => {
      const span = one.span_s ? `${one.span_s[0].toFixed(1)} to ${one.span_s[1].toFixed(1)} s` : "";
      const letter = one.predicted === null ? "" : (LETTERS[one.predicted] ?? "");
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, el("span", { class: `swatch of-${role}` }), ` ${role}`),
        el("td", { text: one.correct ? "✓ right" : "✕ wrong" }),
        el("td", { text: letter || span || "–" }),
        wrote ? said("td", one.text, { class: "reply" }) : null,
        told ? said("td", [one.status === "ok" ? "" : words(one.status), one.detail].filter(Boolean).join(": ")) : null,
      );
    });
    const head = ["model", "", "answer", ...(wrote ? ["what it wrote"] : []), ...(told ? ["status"] : [])];
    return el("div", { class: "scrolls" }, el("table", {}, el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col", text })))), el("tbody", {}, ...rows)));
  }

  drawFrames(look) {
    if (!look.frames_s.length) {
      this.frames.textContent = `No frames: ${look.problem}.`;
      return;
    }
    const isNeedle = this.shown.benchmark === "needle";
    this.film = new Film({
      videoId: look.video_id,
      durationS: look.duration_s,
      framesS: look.frames_s,
      segments: isNeedle ? look.needles_s : this.shown.spans_s,
      inside: isNeedle ? "shows the needle" : "in the segment",
      borrowed: look.borrowed,
      label: "Frames that the models were shown, in their order",
    });
    this.frames.replaceWith(this.film.element);
    this.film.center();
  }
}

function softmax(logprobs) {
  const most = Math.max(...logprobs);
  const weights = logprobs.map((value) => Math.exp(value - most));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}
