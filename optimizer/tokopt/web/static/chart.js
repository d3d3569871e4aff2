// The frontier as SVG: a curve an accelerator, the limit, the plan's points. Markers and dashes tell curves apart
// where colours do not; every point takes the focus, one of them by Tab, the others by arrow keys.
import { element, number, shape, usd } from "./dom.js";

const MARGIN = { left: 62, right: 16, top: 14, bottom: 46 };
const NEAR = 28; // px from the pointer to a point
const COLOURS = 8;
const DASHES = ["", "7 3", "2 3", "9 3 2 3"];
const MARKERS = [
  (r) => `M${-r} 0A${r} ${r} 0 1 0 ${r} 0A${r} ${r} 0 1 0 ${-r} 0Z`,
  (r) => `M${-r} ${-r}H${r}V${r}H${-r}Z`,
  (r) => `M0 ${-1.2 * r}L${1.15 * r} ${r}H${-1.15 * r}Z`,
  (r) => `M0 ${-1.35 * r}L${1.35 * r} 0L0 ${1.35 * r}L${-1.35 * r} 0Z`,
  (r) => `M0 ${1.2 * r}L${1.15 * r} ${-r}H${-1.15 * r}Z`,
  (r) => `M${-r / 2.4} ${-r * 1.25}H${r / 2.4}V${-r / 2.4}H${r * 1.25}V${r / 2.4}H${r / 2.4}V${r * 1.25}H${-r / 2.4}V${r / 2.4}H${-r * 1.25}V${-r / 2.4}H${-r / 2.4}Z`,
  (r) => `M${-1.4 * r} ${-r * 0.8}H${1.4 * r}V${r * 0.8}H${-1.4 * r}Z`,
  (r) => `M0 ${-1.3 * r}L${1.24 * r} ${-0.4 * r}L${0.76 * r} ${1.05 * r}H${-0.76 * r}L${-1.24 * r} ${-0.4 * r}Z`,
];
const STAR = (r) => {
  const corner = (i) => [Math.sin((i * Math.PI) / 5), -Math.cos((i * Math.PI) / 5)].map((v) => v * (i % 2 ? r * 0.45 : r));
  return `M${Array.from({ length: 10 }, (_, i) => corner(i).map((v) => v.toFixed(2)).join(" ")).join("L")}Z`;
};

export function styleOf(place) {
  return {
    colour: `c${place % COLOURS}`,
    marker: MARKERS[(place + Math.floor(place / COLOURS)) % MARKERS.length],
    dash: DASHES[(place + Math.floor(place / COLOURS)) % DASHES.length],
  };
}

export function marker(place) {
  const style = styleOf(place);
  return shape("svg", { viewBox: "-18 -8 36 16", width: 36, height: 16, "aria-hidden": "true", class: style.colour }, [
    shape("path", { d: "M-17 0H17", class: "curve", "stroke-dasharray": style.dash || null }),
    shape("path", { d: style.marker(4.5), class: "mark" }),
  ]);
}

function ticks(low, high, room) {
  const found = [];
  for (const steps of [[1, 2, 5], [1, 3], [1]]) {
    found.length = 0;
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
      for (const step of steps) {
        const value = step * 10 ** power;
        if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
      }
    }
    if (found.length <= room) break;
  }
  return found;
}

export class FrontierChart {
  // `told` is handed the point that is looked at.
  constructor(place, told) {
    this.place = place;
    this.told = told;
    this.hidden = new Set();
    this.view = null;
    this.moving = { limit: null, plan: [], pinned: [] };
    new ResizeObserver(() => this.width !== Math.floor(place.clientWidth) && this.draw()).observe(place);
  }

  show(view) {
    if (this.view === view) return;
    this.view = view;
    const names = [...new Set(view.frontier.points.map((point) => point.accelerator))];
    this.series = names.map((name, place) => ({
      name, title: view.titles[name] || name, place,
      points: view.frontier.points
        .map((point, index) => ({ ...point, setup: view.setups[index], title: view.titles[name] || name, place }))
        .filter((point) => point.accelerator === name)
        .sort((a, b) => a.tokens_per_s_per_user - b.tokens_per_s_per_user),
    }));
    this.draw();
  }

  // The limit in tokens/s a user, and points of plans: what changes as sliders move.
  move(limit, plan, pinned) {
    this.moving = { limit, plan, pinned };
    if (!this.view) return;
    if (this.outside()) this.draw();
    else this.drawMoving();
  }

  toggle(name) {
    if (!this.hidden.delete(name)) this.hidden.add(name);
    this.draw();
  }

  all() {
    const shown = this.series.filter((each) => !this.hidden.has(each.name)).flatMap((each) => each.points);
    return [...shown, ...this.moving.plan, ...this.moving.pinned];
  }

  outside() {
    return [...this.moving.plan, ...this.moving.pinned].some((point) => {
      const x = this.x(point.tokens_per_s_per_user), y = this.y(point.output_tokens_per_s_per_gpu);
      return !(x >= MARGIN.left && x <= this.width - MARGIN.right && y >= MARGIN.top && y <= this.height - MARGIN.bottom);
    });
  }

  scale() {
    const points = this.all().length ? this.all() : this.series.flatMap((each) => each.points);
    const range = (name) => {
      const values = points.map((point) => point[name]).filter((value) => value > 0);
      return [Math.min(...values) / 1.15, Math.max(...values) * 1.15];
    };
    const [x0, x1] = range("tokens_per_s_per_user");
    const [y0, y1] = range("output_tokens_per_s_per_gpu");
    const wide = this.width - MARGIN.left - MARGIN.right, high = this.height - MARGIN.top - MARGIN.bottom;
    this.x = (value) => MARGIN.left + (wide * Math.log(value / x0)) / Math.log(x1 / x0);
    this.y = (value) => MARGIN.top + high * (1 - Math.log(value / y0) / Math.log(y1 / y0));
    this.ends = { x0, x1, y0, y1 };
  }

  draw() {
    if (!this.view) return;
    const focused = this.place.contains(document.activeElement) ? this.current : null;
    this.width = Math.floor(this.place.clientWidth) || 600;
    this.height = Math.round(Math.min(520, Math.max(320, this.width * 0.56)));
    this.scale();
    this.layer = shape("g");
    const curves = this.series.filter((each) => !this.hidden.has(each.name)).map((each) => this.curve(each));
    this.svg = shape("svg", {
      viewBox: `0 0 ${this.width} ${this.height}`, width: this.width, height: this.height, role: "group",
      "aria-label": "Output per GPU against speed per user, both logarithmic",
    }, [...this.axes(), ...curves, this.layer]);
    this.svg.addEventListener("pointermove", (event) => this.look(event));
    this.svg.addEventListener("pointerdown", (event) => this.look(event));
    this.svg.addEventListener("pointerleave", () => this.leave());
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.tip = element("div", { class: "tip", "aria-hidden": "true", hidden: true });
    this.place.replaceChildren(this.svg, this.tip);
    this.drawMoving();
    if (focused) this.focusNear(focused);
  }

  axes() {
    const { x0, x1, y0, y1 } = this.ends;
    const bottom = this.height - MARGIN.bottom, right = this.width - MARGIN.right;
    const made = [];
    for (const value of ticks(x0, x1, (this.width - 80) / 55)) {
      const x = this.x(value);
      made.push(shape("path", { d: `M${x} ${MARGIN.top}V${bottom}`, class: "grid" }));
      made.push(shape("text", { x, y: bottom + 18, class: "tick middle" }, number(value, 1)));
    }
    for (const value of ticks(y0, y1, (this.height - 60) / 34)) {
      const y = this.y(value);
      made.push(shape("path", { d: `M${MARGIN.left} ${y}H${right}`, class: "grid" }));
      made.push(shape("text", { x: MARGIN.left - 6, y: y + 4, class: "tick end" }, number(value, 1)));
    }
    made.push(shape("text", { x: (MARGIN.left + right) / 2, y: this.height - 8, class: "axis middle" }, "tokens/s a user"));
    const middle = (MARGIN.top + bottom) / 2;
    made.push(shape("text", { x: 14, y: middle, class: "axis middle", transform: `rotate(-90 14 ${middle})` }, "output tokens/s a GPU"));
    return made;
  }

  curve(series) {
    const style = styleOf(series.place);
    const at = (point) => `${this.x(point.tokens_per_s_per_user).toFixed(1)} ${this.y(point.output_tokens_per_s_per_gpu).toFixed(1)}`;
    return shape("g", { class: style.colour, role: "list", "aria-label": series.title }, [
      shape("path", { d: `M${series.points.map(at).join("L")}`, class: "curve", "stroke-dasharray": style.dash || null }),
      ...series.points.map((point) => this.mark(point, style.marker(point.on_overall_frontier ? 4.5 : 3), "mark")),
    ]);
  }

  mark(point, path, kind) {
    const made = shape("path", {
      d: path, class: kind, tabindex: -1, role: "listitem", "aria-label": words(point),
      transform: `translate(${this.x(point.tokens_per_s_per_user).toFixed(1)} ${this.y(point.output_tokens_per_s_per_gpu).toFixed(1)})`,
    });
    made.point = point;
    made.addEventListener("focus", () => this.choose(made));
    return made;
  }

  drawMoving() {
    const { limit, plan, pinned } = this.moving;
    const bottom = this.height - MARGIN.bottom;
    const made = [];
    if (limit && limit >= this.ends.x0 && limit <= this.ends.x1) {
      const x = this.x(limit);
      const left = x > this.width - 150;
      made.push(shape("rect", { x: MARGIN.left, y: MARGIN.top, width: Math.max(0, x - MARGIN.left), height: bottom - MARGIN.top, class: "beyond" }));
      made.push(shape("path", { d: `M${x} ${MARGIN.top}V${bottom}`, class: "limit" }));
      made.push(shape("text", { x: x + (left ? -6 : 6), y: bottom - 8, class: left ? "limit-text end" : "limit-text" }, `limit: ${number(1000 / limit)} ms a token`));
    } else if (limit && limit > this.ends.x1) {
      made.push(shape("rect", { x: MARGIN.left, y: MARGIN.top, width: this.width - MARGIN.left - MARGIN.right, height: bottom - MARGIN.top, class: "beyond" }));
    }
    made.push(...pinned.map((point) => this.mark(point, STAR(9), "plan-mark pinned-mark")));
    made.push(...plan.map((point) => this.mark(point, STAR(11), "plan-mark")));
    this.layer.replaceChildren(...made);
    this.rove(this.layer.querySelector(".plan-mark:last-child") || this.svg.querySelector(".mark"));
  }

  // --- looking at points ---

  marks() {
    return [...this.svg.querySelectorAll(".mark, .plan-mark")];
  }

  rove(made) {
    for (const each of this.svg.querySelectorAll('[tabindex="0"]')) each.setAttribute("tabindex", "-1");
    made?.setAttribute("tabindex", "0");
  }

  choose(made) {
    this.current = made.point;
    this.rove(made);
    this.hint(made);
    this.told(made.point, words(made.point));
  }

  hint(made) {
    const x = this.x(made.point.tokens_per_s_per_user), y = this.y(made.point.output_tokens_per_s_per_gpu);
    for (const each of this.svg.querySelectorAll(".looked")) each.classList.remove("looked");
    made.classList.add("looked");
    this.tip.textContent = `${made.point.title}: ${number(made.point.tokens_per_s_per_user)} /user, ${number(made.point.output_tokens_per_s_per_gpu)} /GPU`;
    this.tip.hidden = false;
    const wide = this.tip.offsetWidth;
    this.tip.style.left = `${Math.min(Math.max(0, x - wide / 2), this.width - wide)}px`;
    this.tip.style.top = `${y > 60 ? y - 38 : y + 16}px`;
  }

  look(event) {
    const box = this.svg.getBoundingClientRect();
    const px = event.clientX - box.left, py = event.clientY - box.top;
    let nearest = null, least = NEAR;
    for (const made of this.marks()) {
      const kept = made.classList.contains("plan-mark") ? 6 : 0; // plans win over what lies beneath them
      const apart = Math.hypot(this.x(made.point.tokens_per_s_per_user) - px, this.y(made.point.output_tokens_per_s_per_gpu) - py) - kept;
      if (apart < least) [nearest, least] = [made, apart];
    }
    if (!nearest) return this.leave();
    if (nearest.point === this.looked) return undefined;
    this.looked = nearest.point;
    this.hint(nearest);
    return this.told(nearest.point, words(nearest.point));
  }

  leave() {
    this.looked = null;
    this.tip.hidden = true;
    for (const each of this.svg.querySelectorAll(".looked")) each.classList.remove("looked");
  }

  key(event) {
    const made = document.activeElement;
    if (!made?.point || event.ctrlKey || event.altKey || event.metaKey) return;
    const siblings = [...made.parentNode.querySelectorAll(".mark, .plan-mark")];
    const groups = [...new Set(this.marks().map((each) => each.parentNode))];
    const along = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const across = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    let next = null;
    if (along) next = siblings[siblings.indexOf(made) + along];
    else if (event.key === "Home") [next] = siblings;
    else if (event.key === "End") next = siblings.at(-1);
    else if (across) {
      const group = groups[(groups.indexOf(made.parentNode) + across + groups.length) % groups.length];
      next = this.closest([...group.querySelectorAll(".mark, .plan-mark")], made.point);
    } else if (event.key === "Escape") this.leave();
    else return;
    event.preventDefault();
    next?.focus();
  }

  closest(marks, point) {
    const apart = (made) => Math.abs(Math.log(made.point.tokens_per_s_per_user / point.tokens_per_s_per_user));
    return marks.reduce((best, made) => (best && apart(best) <= apart(made) ? best : made), null);
  }

  focusNear(point) {
    const same = this.marks().find((made) => made.point === point);
    (same || this.closest(this.marks(), point))?.focus({ preventScroll: true });
  }
}

export function words(point) {
  const price = point.usd_per_million_output_tokens;
  const parts = [
    `${point.plan ? `${point.plan}: ` : ""}${point.title}`,
    `${number(point.tokens_per_s_per_user)} tokens/s a user, ${number(point.output_tokens_per_s_per_gpu)} output tokens/s a GPU`,
    price === null || price === undefined ? "" : `${usd(price)} per million output tokens`,
    point.ttft_ms ? `first token after ${number(point.ttft_ms / 1000)} s` : "",
    point.replicas ? `${point.replicas.toLocaleString("en-US")} replicas on ${point.gpus.toLocaleString("en-US")} GPUs` : "",
    point.setup,
  ];
  return parts.filter(Boolean).join("; ");
}
