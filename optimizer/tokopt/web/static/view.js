// Plans and comparisons as elements.
import { element, number, percent, power, scaled, table, usd } from "./dom.js";

const WORDS = { on_demand: "on demand", reserved_1y: "reserved 1 year", reserved_3y: "reserved 3 years" };

const terms = (item) => (item.provider === item.market ? item.provider : `${item.provider}, ${WORDS[item.market] || item.market}`);

export function headline(view) {
  return view.headline.map((figure) => element("div", {}, [
    element("dt", {}, figure.title),
    element("dd", {}, [
      element("span", { class: "value" }, figure.text),
      element("span", { class: "range" }, figure.interval ? `80 %: ${figure.range_text}` : figure.range_text),
    ]),
  ]));
}

export function fleet(view) {
  const shared = view.plan.request.classes.length > 0;
  const rows = view.plan.fleet.map((item, place) => [
    machines(view, item),
    terms(item) + (item.region ? `, ${item.region}` : ""),
    item.gpus.toLocaleString("en-US"),
    item.replicas.toLocaleString("en-US"),
    view.setups[place],
    ...(shared ? [Object.entries(item.share_of_traffic).map(([name, part]) => `${number(part * 100)} % of ${name}`).join(", ")] : []),
    `${number(item.tpot_ms.p99)} ms, ${number(item.ttft_ms.p99 / 1000)} s`,
    `${Math.round(item.load * 100)} %`,
    scaled(item.output_tokens_per_s, "tok/s"),
    power(item.power_kw),
    usd(item.usd_per_hour / item.gpus),
    usd(item.usd_per_hour),
  ]);
  const headings = ["Accelerator", "From", "GPUs", "Replicas", "Set-up of a replica", ...(shared ? ["Traffic"] : []),
    "TPOT, TTFT at p99", "Load", "Output", "Power", "GPU-hour", "Hour"];
  const after = shared ? 6 : 5;
  return table(headings, rows, { numeric: [2, 3, ...headings.keys()].filter((column) => column === 2 || column === 3 || column >= after) });
}

// What an item runs on; both kinds where its pools are on different ones.
function machines(view, item) {
  const kinds = item.parts.length ? item.parts.map((part) => part.accelerator) : [item.accelerator];
  return kinds.map((name) => view.titles[name] || name).join(" + ");
}

function facts(rows) {
  return element("dl", { class: "facts" }, rows.flatMap(([name, said]) => [element("dt", {}, name), element("dd", {}, said)]));
}

function part(title, rows) {
  return rows.length ? [element("h3", {}, title), facts(rows)] : [];
}

export function why(view) {
  const { plan } = view;
  const title = (name) => view.titles[name] || name;
  const second = plan.runner_up;
  const made = [
    ...(plan.binding.length ? [facts(plan.binding.map((each) => [each.constraint, each.detail]))] : []),
    ...part("What a little more would be worth", view.worth),
  ];
  if (second) {
    const mix = Object.entries(second.accelerators).map(([name, count]) => `${count.toLocaleString("en-US")} ${title(name)}`);
    made.push(element("h3", {}, `Second best, without ${title(second.without)}: ${number(second.worse_by * 100, 2)} % worse`));
    made.push(element("p", {}, `${mix.join(", ")}: ${usd(second.usd_per_million_output_tokens)} per million output tokens, ${usd(second.usd_per_hour)} an hour, ${scaled(second.output_tokens_per_s, "tok/s")}`));
  }
  const even = plan.break_even.filter((each) => each.usd_per_gpu_hour !== null);
  made.push(...part("Prices at which others would come in", even.map((each) => [
    title(each.accelerator),
    `${usd(each.usd_per_gpu_hour)} a GPU-hour${each.exact ? "" : ", about"}; the cheapest on offer is ${usd(each.cheapest_usd_per_gpu_hour)}`,
  ])));
  made.push(...part("Accelerators left out", Object.entries(plan.excluded).map(([name, said]) => [title(name), said])));
  return made;
}

// What an infeasible plan says: each limit that, given up alone, would make one possible.
export function nearest(view) {
  const rows = view.plan.nearest_feasible.map((each) => [each.constraint, each.requested, each.nearest, each.detail]);
  return rows.length
    ? [table(["Limit", "Asked", "Nearest that works", ""], rows)]
    : [element("p", {}, "No single limit, given up alone, makes a plan possible.")];
}

export function assumptions(view) {
  const made = view.plan.provenance;
  return [
    element("ul", {}, view.plan.assumptions.map((line) => element("li", {}, line))),
    facts([
      ["Prices", `${made.price_lists.join(", ")} as of ${made.prices_as_of || "an unknown date"}`],
      ["Calibration", `${made.calibration} of ${made.calibration_made_on}. ${made.calibration_summary}`],
      ["Made with", `tokopt ${made.tokopt_version}, catalog ${made.catalog_version}, solver ${made.solver}`],
    ]),
  ];
}

export function comparison(found, names) {
  const [first, second] = names;
  const change = (each) => (each.change_percent === null ? "–" : Math.abs(each.change_percent) < 0.05 ? "the same" : percent(each.change_percent));
  const made = [
    element("div", { class: "sides" }, [[first, found.first], [second, found.second]].map(([name, view]) =>
      element("div", {}, [element("h3", {}, name), element("p", {}, view.sentence)]))),
  ];
  if (found.figures.length) {
    made.push(element("div", { class: "scroll" }, [table(
      ["", first, second, "Difference"],
      found.figures.map((each) => [each.title, each.first_text, each.second_text, change(each)]), { numeric: [1, 2, 3] },
    )]));
  }
  if (found.machines.length) {
    const differ = (each) => {
      const more = each.second_gpus - each.first_gpus;
      return more === 0 ? "the same" : `${more > 0 ? "+" : "−"}${Math.abs(more).toLocaleString("en-US")}`;
    };
    made.push(element("div", { class: "scroll" }, [table(
      ["GPUs", first, second, "Difference"],
      found.machines.map((each) => [`${each.title} (${terms(each)})`, each.first_gpus.toLocaleString("en-US"), each.second_gpus.toLocaleString("en-US"), differ(each)]),
      { numeric: [1, 2, 3] },
    )]));
  }
  made.push(element("h3", {}, found.asked.length ? "What is asked differently" : "Both ask the same"));
  if (found.asked.length) {
    made.push(element("div", { class: "scroll" }, [table(
      ["", first, second], found.asked.map((each) => [each.field.replaceAll("_", " "), each.first, each.second]),
    )]));
  }
  return made;
}
