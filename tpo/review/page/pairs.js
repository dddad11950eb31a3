// Pair review: two answers whose origin is hidden, and what they came from once there is a verdict.

import { ask, clock, el, isolated, said, say, tell, words } from "./dom.js";
import { Film } from "./film.js";

const MARKS = { A: "mark-a", B: "mark-b" };
const VERDICTS = {
  accept: ["✓", "accept"],
  reject: ["✕", "reject"],
  tie: ["=", "tie"],
  bad_question: ["?", "bad question"],
};

export class PairView {
  constructor(card, list) {
    Object.assign(this, { card, list, name: "pairs", last: null });
    this.fields = [
      ["reviewed", "Reviewed", ["not_by_me", "by_me", "divided", "against_judge"]],
      ["granularity", "Granularity"],
      ["question_type", "Type"],
      ["judge", "Judge"],
      ["difficulty", "Difficulty", ["easy", "medium", "hard"]],
    ];
    this.keys = [
      ["1 or a", "A is better", () => this.judge("A")],
      ["2 or b", "B is better", () => this.judge("B")],
      ["3 or t", "tie", () => this.judge("tie")],
      ["4 or q", "bad question", () => this.judge("bad_question")],
      ["s", "show what each answer saw (is recorded)", () => this.judge("look")],
      ["u", "take your last verdict back", () => this.undo()],
    ];
  }

  defaults(choices) {
    return { judge: choices.judge.includes("kept") ? "kept" : "" };
  }

  row(row) {
    const [sign, name] = VERDICTS[row.mine] ?? ["", ""];
    const others = row.num_reviewers > (row.mine ? 1 : 0) ? ` · ${row.num_reviewers} reviewed` : "";
    return [
      el("span", { class: "sign", text: sign, title: name, "aria-label": name }),
      said("span", row.question, { class: "question" }),
      el("span", { class: "meta", text: `${words(row.question_type)} · ${row.granularity}${others}` }),
    ];
  }

  async open(position) {
    const found = await ask(`/api/pairs/${position}`);
    if (this.list.positions[this.list.at] === position) this.draw(found);
  }

  draw({ card, mine, origin }) {
    this.shown = { card, mine, origin };
    this.film?.stop();
    const lanes = origin ? ["A", "B"].filter((one) => origin.shown[one]).map((one) => ({ name: one, mark: MARKS[one], framesS: origin.shown[one].frames_s })) : [];
    this.film = new Film({
      videoId: card.video_id,
      durationS: card.duration_s,
      framesS: card.frames_s,
      segments: card.segment_s ? [card.segment_s] : [],
      lanes,
      label: "Frames of the video",
    });
    this.card.replaceChildren(
      el("p", { class: "meta", text: `${words(card.question_type)} · ${card.granularity} · pair ${card.id.slice(0, 8)}` }),
      said("h2", card.question),
      el("div", { class: "answers" }, this.answer("A"), this.answer("B")),
      this.buttons(),
      el("div", { class: "beside" }, this.film.element, this.captions()),
      ...(origin ? [this.origin()] : []),
      el("p", { class: "meta" }, "video ", said("code", card.video)),
    );
    this.film.center();
  }

  answer(letter) {
    const { card, origin, mine } = this.shown;
    const parts = [el("h3", {}, el("span", { class: `mark ${MARKS[letter]}`, text: letter }), " answer"), said("p", card.answers[letter], { class: "text" })];
    if (origin) {
      const is = origin.chosen === letter ? "chosen" : "rejected";
      parts[0].append(el("span", { class: `is-${is}`, text: is }));
      parts.push(el("p", { class: "meta", text: sawWhat(origin.shown[letter]) }));
    }
    const picked = mine && origin && ((mine === "accept" && origin.chosen === letter) || (mine === "reject" && origin.chosen !== letter));
    return el("section", { class: picked ? "answer is-picked" : "answer", "aria-label": `Answer ${letter}` }, ...parts);
  }

  buttons() {
    const { mine, origin } = this.shown;
    const button = (key, text, what) =>
      el("button", { type: "button", on: { click: () => this.judge(what) } }, el("kbd", { text: key }), ` ${text}`);
    const bar = el("div", { class: "verdict", role: "group", "aria-label": "Verdict" });
    if (mine) {
      const [sign, name] = VERDICTS[mine];
      const undo = el("button", { type: "button", on: { click: () => this.judge("undo") } }, el("kbd", { text: "u" }), " take back");
      bar.append(el("p", { class: "yours" }, el("span", { class: "sign", text: sign }), ` your verdict: ${name}`), undo);
      bar.append(el("button", { type: "button", class: "next", on: { click: () => this.list.move(1) } }, el("kbd", { text: "n" }), " next"));
      return bar;
    }
    bar.append(button("1", "A is better", "A"), button("2", "B is better", "B"), button("3", "tie", "tie"), button("4", "bad question", "bad_question"));
    if (!origin) bar.append(el("button", { type: "button", class: "quiet", on: { click: () => this.judge("look") } }, el("kbd", { text: "s" }), " show what each saw"));
    return bar;
  }

  captions() {
    const { card } = this.shown;
    const lines = card.captions.map((line) =>
      el(
        "li",
        { class: line.in_segment ? "is-inside" : null },
        el("button", { type: "button", class: "time", text: `${clock(line.start_s)}–${clock(line.end_s)}`, on: { click: () => this.film.showNear(line.start_s) } }),
        said("span", line.text),
      ),
    );
    const sources = [...new Set(card.captions.map((line) => line.source))];
    return el(
      "section",
      { class: "captions", "aria-label": "Source captions" },
      el("h3", { text: `Captions (${lines.length})` }),
      el("ol", {}, ...lines),
      el("p", { class: "meta" }, lines.length ? "by " : "none", said("span", sources.join(", "))),
    );
  }

  origin() {
    const { origin } = this.shown;
    const rows = origin.judge_verdicts.map((one) =>
      el(
        "tr",
        {},
        el("th", { scope: "row", text: one.preferred_shown_first ? "first" : "second" }),
        el("td", { text: one.preferred_is }),
        el("td", { text: one.conflicts_with_captions ? "yes" : "no" }),
        el("td", { text: one.is_correct ? "yes" : "no" }),
        said("td", one.reply, { class: "reply" }),
      ),
    );
    const head = ["chosen answer shown", "it is", "conflicts with captions", "is correct", "in its words"];
    const facts = [
      ["Judge", `${origin.judge_outcome === "kept" ? "kept it" : `set it aside: ${words(origin.judge_outcome)}`}${origin.judge ? ` (${origin.judge})` : ""}`],
      ["", origin.judge_detail],
      ["Reference answer", origin.reference_answer],
      ["Asked by", origin.asker],
      ["Right without the video", origin.blind_score === null ? null : `${Math.round(origin.blind_score * 100)} % of the time`],
      ["Answers by", origin.model_id],
      ["Reviewers", Object.entries(origin.reviews).map(([who, verdict]) => `${isolated(who)}: ${words(verdict)}`).join(", ")],
    ];
    const list = el("dl", {});
    for (const [name, text] of facts) if (text) list.append(el("dt", { text: name }), said("dd", text));
    const table = el("table", {}, el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col", text })))), el("tbody", {}, ...rows));
    return el("section", { class: "origin", "aria-label": "Where it came from" }, el("h3", { text: "Where it came from" }), list, rows.length ? el("div", { class: "scrolls" }, table) : null);
  }

  async judge(what, pairId = this.shown?.card.id) {
    if (!pairId || this.telling || (this.shown?.mine && what !== "undo")) return;
    this.telling = true;
    const telling = tell("/api/reviews", { pair_id: pairId, said: what });
    const found = await telling.finally(() => (this.telling = false));
    if (what === "undo") this.last = null;
    else if (what !== "look") this.last = pairId;
    this.list.update(found.card.position, { mine: found.mine });
    if (found.mine) say(`${VERDICTS[found.mine][1]}: on disk`, 2);
    if (what === "undo") say("taken back", 2);
    if (this.list.positions[this.list.at] === found.card.position) this.draw(found);
    else if (what === "undo") this.list.select(this.list.positions.indexOf(found.card.position));
    this.onSaid?.();
  }

  undo() {
    const pairId = this.shown?.mine ? this.shown.card.id : this.last;
    if (pairId) return this.judge("undo", pairId);
    say("There is no verdict to take back.");
  }

  // How far `reviewer` and others have come, and how far they agree.
  async told(reviewer) {
    const summary = await ask("/api/summary");
    const agreed = summary.agreement
      .filter((one) => one.reviewers.includes(reviewer))
      .map((one) => {
        const other = isolated(one.reviewers.find((name) => name !== reviewer));
        const kappa = one.kappa === null ? "" : `, kappa ${one.kappa.toFixed(2)}`;
        return `same as ${other} on ${Math.round(100 * one.same)} % of ${one.num_pairs}${kappa}`;
      });
    return [`${summary.num_reviewed} of ${summary.num_pairs} kept pairs reviewed`, ...agreed].join(" · ");
  }
}

function sawWhat(shown) {
  if (!shown) return "what it was given from is not known";
  const more = [];
  if (shown.num_masked) more.push(`${shown.num_masked} masked`);
  if (shown.num_of_other_videos) more.push(`${shown.num_of_other_videos} of another video`);
  if (shown.difficulty !== null) more.push(`difficulty ${shown.difficulty.toFixed(2)}`);
  if (shown.num_tokens !== null) more.push(`${shown.num_tokens} tokens long`);
  return [`saw ${shown.num_frames} frames: ${words(shown.kind)}`, ...more].join(" · ");
}
