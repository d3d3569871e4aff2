// The form: its choices, what is asked, and the same as the part of a link behind "#".
import { byId, element } from "./dom.js";

const TPOT_STEPS = [5, 6, 7, 8, 10, 12, 14, 16, 18, 20, 22, 25, 28, 30, 33, 36, 40, 45, 50, 55, 60, 70, 80, 90, 100, 120, 150, 200];
const POWER_STEPS_KW = [20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000,
  10000, 11000, 12000, 14000, 16000, 18000, 20000, 25000, 30000, 40000, 50000, 70000, 100000, 150000, 200000];
const TEXTS = ["model", "workload", "tpot", "ttft", "statistic", "power", "demand", "objective", "isl", "osl", "budget", "max_types", "robust", "survive"];
const NUMBERS = { isl: ["isl", 1], osl: ["osl", 1], budget: ["budget_usd_per_hour", 1], max_types: ["max_types", 1], robust: ["robust", 0.01] };
const OWNERSHIP = "ownership-";
const UNITS_KW = { kw: 1, mw: 1e3, gw: 1e6, w: 1e-3 };
const UNITS_MS = { us: 1e-3, ms: 1, s: 1e3 };
const UPLOADS = "tokopt-uploads";

let choices = null;
let standard = {};
export const uploads = new Map(JSON.parse(sessionStorage.getItem(UPLOADS) || "[]")); // name in questions -> what was answered

const nearestStep = (steps, value) => steps.reduce((best, step, place) =>
  (Math.abs(Math.log(step / value)) < Math.abs(Math.log(steps[best] / value)) ? place : best), 0);

export function kilowatts(text) {
  const match = /^\s*([\d.,]+)\s*([kmg]?w)?\s*$/i.exec(text);
  return match ? Number(match[1].replaceAll(",", "")) * UNITS_KW[(match[2] || "MW").toLowerCase()] : NaN;
}

const powerText = (kw) => (kw >= 1000 ? `${kw / 1000} MW` : `${kw} kW`);

// The limit as a speed, in tokens/s a user; null where there is none.
export function limitSpeed(state) {
  const match = /^\s*(\d*\.?\d+)\s*(us|ms|s)?\s*$/.exec(state.tpot);
  const ms = match ? Number(match[1]) * UNITS_MS[match[2] || "ms"] : NaN;
  return ms > 0 ? 1000 / ms : null;
}

export function prepare(found) {
  choices = found;
  standard = {
    model: found.default_model, workload: found.default_workload, tpot: "50", ttft: "", statistic: "p99", power: "10 MW", demand: "",
    objective: "cost", prices: [found.default_prices], gpus: [], isl: "", osl: "", budget: "", max_types: "", robust: "",
    survive: "none", mixed_pools: false,
  };
  const options = (list) => list.map((each) => element("option", { value: each.name }, each.title));
  byId("workload").replaceChildren(...options(found.workloads));
  byId("objective").replaceChildren(...options(found.objectives));
  byId("statistic").replaceChildren(...found.statistics.map((name) => element("option", { value: name },
    name === "mean" ? "requests on average" : `${name.slice(1)} % of requests`)));
  byId("export-to").replaceChildren(...found.exports.map((name) => element("option", { value: name }, name)));
  byId("gpus").replaceChildren(...found.accelerators.map((each) => check("gpus", each)));
  for (const [id, steps] of [["tpot-slider", TPOT_STEPS], ["power-slider", POWER_STEPS_KW]]) {
    Object.assign(byId(id), { min: 0, max: steps.length - 1, step: 1 });
  }
  fillUploads();
}

function check(name, each) {
  return element("label", { title: each.summary || null }, [element("input", { type: "checkbox", name, value: each.name }), element("span", {}, each.title)]);
}

// Puts what was uploaded among what can be chosen, without changing what is chosen.
export function fillUploads() {
  const chosen = { model: byId("model").value, prices: ticked("prices") };
  const own = (kind) => [...uploads.values()].filter((each) => each.kind === kind)
    .map((each) => ({ name: each.upload, title: `${each.name} (yours)`, summary: each.check.summary }));
  const group = (label, list) => element("optgroup", { label }, list.map((each) => element("option", { value: each.name }, each.title)));
  const models = own("model");
  byId("model").replaceChildren(...(models.length ? [group("Yours", models)] : []), group("Catalog", choices.models));
  const usual = (each) => (each.name === choices.default_prices ? 0 : each.name.startsWith(`${OWNERSHIP}components`) ? 2 : 1);
  const owned = choices.price_lists.filter((each) => each.name.startsWith(OWNERSHIP)).sort((a, b) => usual(a) - usual(b));
  const rented = choices.price_lists.filter((each) => !each.name.startsWith(OWNERSHIP));
  byId("prices").replaceChildren(...[...own("prices"), ...owned].map((each) => check("prices", each)));
  byId("prices-more").replaceChildren(...rented.map((each) => check("prices", each)));
  if (chosen.model) byId("model").value = chosen.model;
  tick("prices", chosen.prices);
  byId("uploads").replaceChildren(...[...uploads.values()].map((each) => element("li", {},
    [`${each.name}: ${each.check.summary}`, ...each.check.notes.slice(0, 3).map((note) => element("div", { class: "hint" }, note))])));
  sessionStorage.setItem(UPLOADS, JSON.stringify([...uploads]));
}

const boxes = (name) => [...document.querySelectorAll(`input[name="${name}"]`)];
const ticked = (name) => boxes(name).filter((box) => box.checked).map((box) => box.value);

function tick(name, values) {
  for (const box of boxes(name)) box.checked = values.includes(box.value);
  if (name === "prices" && [...byId("prices-more").querySelectorAll("input")].some((box) => box.checked)) byId("more-prices").open = true;
}

// --- what the form says ---

export function read() {
  const state = Object.fromEntries(TEXTS.map((name) => [name, byId(name).value.trim()]));
  return { ...state, prices: ticked("prices"), gpus: ticked("gpus"), mixed_pools: byId("mixed_pools").checked };
}

export function write(state) {
  for (const name of TEXTS) byId(name).value = state[name];
  tick("prices", state.prices);
  tick("gpus", state.gpus);
  byId("mixed_pools").checked = state.mixed_pools;
  const rare = ["isl", "osl", "budget", "max_types", "robust"].some((name) => state[name]);
  if (rare || state.gpus.length || state.survive !== "none" || state.mixed_pools) byId("more").open = true;
  follow();
}

export const fresh = () => structuredClone(standard);

// Sliders and hints follow the fields.
export function follow() {
  const state = read();
  const tpot = 1000 / (limitSpeed(state) || NaN);
  if (tpot > 0) byId("tpot-slider").value = nearestStep(TPOT_STEPS, tpot);
  byId("tpot-slider").setAttribute("aria-valuetext", tpot > 0 ? `${tpot} milliseconds` : "no limit");
  byId("tpot-hint").textContent = tpot > 0 ? `${+(1000 / tpot).toPrecision(3)} tokens/s for each user` : "No limit on it.";
  const kw = kilowatts(state.power);
  if (kw > 0) byId("power-slider").value = nearestStep(POWER_STEPS_KW, kw);
  byId("power-slider").setAttribute("aria-valuetext", kw > 0 ? powerText(kw) : "no limit");
  const titled = (list, name) => list.find((each) => each.name === name)?.summary || "";
  byId("model-hint").textContent = uploads.get(state.model)?.check.summary || titled(choices.models, state.model);
  byId("workload-hint").textContent = titled(choices.workloads, state.workload).replace(" in,", " tokens in,");
}

export function slide(id) {
  if (id === "tpot-slider") byId("tpot").value = String(TPOT_STEPS[byId(id).value]);
  if (id === "power-slider") byId("power").value = powerText(POWER_STEPS_KW[byId(id).value]);
}

// States with the limit one step of the slider to either side.
export function besideLimit(state) {
  if (!limitSpeed(state)) return [];
  const at = nearestStep(TPOT_STEPS, 1000 / limitSpeed(state));
  return [at - 1, at + 1].filter((step) => step in TPOT_STEPS).map((step) => ({ ...state, tpot: String(TPOT_STEPS[step]) }));
}

// --- as a question and as a link ---

export class FieldError extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

const withUnit = (text, unit) => (/^[\d.]+$/.test(text) ? text + unit : text.replaceAll(" ", ""));

export function question(state) {
  const asked = {
    model: state.model, workload: state.workload, objective: state.objective, prices: state.prices,
    sla: [`tpot=${state.tpot ? withUnit(state.tpot, "ms") : "none"}`, state.ttft ? `ttft=${withUnit(state.ttft, "s")}` : "", state.statistic].filter(Boolean).join(","),
  };
  if (!state.prices.length) throw new FieldError("prices", "tick at least one price list");
  if (state.power) asked.power = withUnit(state.power.replaceAll(" ", ""), "MW");
  if (state.demand) asked.demand = withUnit(state.demand, "req/s");
  if (state.gpus.length) asked.gpus = state.gpus;
  for (const [name, [field, scale]] of Object.entries(NUMBERS)) {
    if (!state[name]) continue;
    const value = Number(state[name].replaceAll(",", "").replace(/[%$]/g, ""));
    if (!Number.isFinite(value)) throw new FieldError(field, `${state[name]} is not a number`);
    asked[field] = value * scale;
  }
  if (state.survive !== "none") asked.survive = state.survive;
  if (state.mixed_pools) asked.mixed_pools = true;
  return asked;
}

export function frontierQuestion(asked) {
  const kept = ["model", "workload", "prices", "gpus", "isl", "osl"];
  return Object.fromEntries(kept.filter((name) => name in asked).map((name) => [name, asked[name]]));
}

export function toLink(state) {
  const link = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    const text = Array.isArray(value) ? value.join(",") : value === true ? "yes" : value || "";
    const usual = Array.isArray(standard[name]) ? standard[name].join(",") : standard[name] === true ? "yes" : standard[name] || "";
    if (text !== usual || ["model", "workload", "tpot", "power", "prices"].includes(name)) link.set(name, text);
  }
  return link.toString();
}

export function fromLink(text) {
  const link = new URLSearchParams(text);
  const state = fresh();
  for (const name of Object.keys(state)) {
    if (!link.has(name)) continue;
    const value = link.get(name).slice(0, 2000);
    if (Array.isArray(state[name])) state[name] = value.split(",").filter(Boolean);
    else state[name] = typeof state[name] === "boolean" ? value === "yes" : value;
  }
  return state;
}

// Names in a state that this page does not offer: of uploads of other people, or misspelt ones.
export function unknown(state) {
  const offered = (id, name) => [...byId(id).options].some((option) => option.value === name);
  const faults = [];
  const gone = (name) => (name.startsWith("upload-") ? "the link names an uploaded file that is not here: drop it in again" : `${name} is not in this catalog`);
  for (const name of ["model", "workload", "objective", "statistic"]) {
    if (!offered(name, state[name])) faults.push([name === "statistic" ? "sla" : name, gone(state[name]), name, state[name]]);
  }
  for (const name of ["prices", "gpus"]) {
    const known = boxes(name).map((box) => box.value);
    for (const each of state[name]) if (!known.includes(each)) faults.push([name, gone(each), name, each]);
  }
  return faults;
}

export function commandLine(asked) {
  const plain = (text) => (/^[\w@.,=/:-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  const named = (name) => uploads.get(name)?.name || name;
  const words = ["tokopt plan", `--model ${plain(named(asked.model))}`, `--workload ${plain(asked.workload)}`, `--sla ${plain(asked.sla)}`];
  const options = { power: "power", demand: "demand", objective: "objective", isl: "isl", osl: "osl", max_types: "max-types", robust: "robust", survive: "survive" };
  for (const [field, option] of Object.entries(options)) {
    if (asked[field] !== undefined && asked[field] !== "cost") words.push(`--${option} ${plain(String(asked[field]))}`);
  }
  if (asked.budget_usd_per_hour) words.push(`--budget ${asked.budget_usd_per_hour}USD`);
  if (asked.gpus) words.push(`--gpu ${plain(asked.gpus.join(","))}`);
  if (asked.mixed_pools) words.push("--mixed-pools");
  words.push(`--prices ${plain(asked.prices.map(named).join(","))}`);
  return words.join(" \\\n  ");
}
