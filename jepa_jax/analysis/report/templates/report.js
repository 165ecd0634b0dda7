"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const preferred = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (preferred.matches ? "dark" : "light")) === "dark";
  const label = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
  preferred.addEventListener("change", label);
  label();

  // What stands under the pointer, or under the arrow keys: by the place along the axis, or by both places of a dot.
  for (const plot of document.querySelectorAll(".plot[data-spots]")) {
    const numbers = (text) => text ? text.split(",").map(Number) : null;
    const places = numbers(plot.dataset.spots), heights = numbers(plot.dataset.heights);
    const texts = JSON.parse(plot.querySelector("script").textContent);
    const cursor = plot.querySelector(".cursor"), tip = plot.querySelector(".tip");
    let current = -1;
    const show = (i) => {
      current = Math.max(0, Math.min(places.length - 1, i));
      cursor.hidden = tip.hidden = false;
      cursor.style.left = `${places[current]}%`;
      if (heights) { cursor.classList.add("dot"); cursor.style.top = `${100 - heights[current]}%`; }
      tip.textContent = texts[current];
      const room = plot.clientWidth - tip.offsetWidth;
      tip.style.left = `${Math.max(0, Math.min(room, places[current] / 100 * plot.clientWidth - tip.offsetWidth / 2))}px`;
    };
    const hide = () => { cursor.hidden = tip.hidden = true; };
    const nearest = (x, y) => {
      const ratio = plot.clientHeight / plot.clientWidth;
      const far = (i) => heights ? Math.hypot(places[i] - x, (heights[i] - y) * ratio) : Math.abs(places[i] - x);
      let best = 0, least = Infinity;
      for (let i = 0; i < places.length; i++) { const d = far(i); if (d < least) { least = d; best = i; } }
      return best;
    };
    tip.setAttribute("role", "status");
    plot.tabIndex = 0;
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-label", heights ? "Images of the chart: left and right arrow keys" : "Values of the chart: left and right arrow keys");
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      show(nearest((event.clientX - box.left) / box.width * 100, (box.bottom - event.clientY) / box.height * 100));
    });
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      show(current < 0 ? Math.floor(places.length / 2) : current + step);
    });
  }

  // The section in view is marked in the contents.
  const links = new Map([...document.querySelectorAll(".contents a")].map((a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const id of links.keys()) seen.observe(document.getElementById(id));

  // The list of all images. Row i of a set is the i-th rarest of those listed.
  const PER_PAGE = 48;
  const by = (id) => document.getElementById(id);
  const listings = [...document.querySelectorAll("script.listing")];
  const explorer = by("explorer"), entries = by("entries"), dialog = by("enlarged");
  const made = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const shown = (value) => value === null ? "unknown" : value.toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 }).replace("-", "\u2212").replaceAll(",", "\u202f");
  const counted = (n) => n.toLocaleString("en").replaceAll(",", "\u202f");

  const unpack = async (text) => {
    const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  };
  const sets = [];
  const load = async (number) => {
    if (sets[number]) return sets[number];
    const set = await unpack(listings[number].textContent);
    listings[number].textContent = "";
    const rows = set.ranks && new Map(set.ranks.map((rank, row) => [rank, row]));
    set.row = (rank) => rows ? rows.get(rank) : rank;
    set.lower = set.keys.map((key) => key.toLowerCase());
    set.marks = { ...set.faults, "near-duplicates": set.alike.flat(), predicted: set.predicted ?? [], unfamiliar: set.unfamiliar ?? [] };
    set.has = Object.fromEntries(Object.entries(set.marks).map(([word, rows]) => [word, new Set(rows)]));
    set.family = new Map();
    for (const rows of set.alike) for (const row of rows) set.family.set(row, rows);
    set.ticked = new Set();
    set.byKey = null;
    for (const image of document.querySelectorAll(`img[data-set="${number}"]`)) {
      const row = set.row(Number(image.dataset.rank));
      if (row !== undefined) set.pictures[row] ??= image.src;
    }
    return sets[number] = set;
  };
  let set, found = [], page = 0, open = -1, opener = null, chosen = 0;
  const percentile = (row) => ((set.ranks ? set.ranks[row] : row) + 0.5) / set.total * 100;

  const words = (row) => {
    const said = Object.keys(set.faults).filter((word) => set.has[word].has(row));
    const others = (set.family.get(row)?.length ?? 1) - 1;
    if (others) said.push(`${others} near-duplicate${others > 1 ? "s" : ""}`);
    if (set.has.predicted.has(row)) said.push("predicted");
    if (set.has.unfamiliar.has(row)) said.push("unfamiliar");
    return said.join(", ");
  };
  const interval = (row) => {
    if (!set.low || !set.has.predicted.has(row)) return null;
    const low = set.low[row], high = set.high[row];
    return low === null || high === null ? "interval unknown" : `${shown(low)} to ${shown(high)}`;
  };
  const bar = (row) => {
    const line = made("span", "interval"), least = set.scores[0], most = set.scores.at(-1);
    line.setAttribute("aria-hidden", "true");
    const at = (value, otherwise) => value === null ? otherwise : Math.max(0, Math.min(100, (value - least) / ((most - least) || 1) * 100));
    const reach = made("i"), middle = made("b");
    reach.style.left = `${at(set.low[row], 0)}%`;
    reach.style.right = `${100 - at(set.high[row], 100)}%`;
    middle.style.left = `${at(set.scores[row], 50)}%`;
    line.append(reach, middle);
    return line;
  };

  const entry = (row) => {
    const item = made("li"), box = made("input"), look = made("button"), text = made("div");
    box.type = "checkbox";
    box.checked = set.ticked.has(row);
    box.setAttribute("aria-label", `Tick ${set.keys[row]}`);
    box.addEventListener("change", () => { set.ticked[box.checked ? "add" : "delete"](row); say(); });
    look.type = "button";
    look.setAttribute("aria-label", `Enlarge ${set.keys[row]}`);
    if (set.pictures[row]) {
      const image = made("img");
      image.src = set.pictures[row];
      image.alt = "";
      look.append(image);
    } else look.textContent = "no picture in this page";
    look.addEventListener("click", () => enlarge(row, look));
    const facts = made("div", "facts"), bounds = interval(row), said = words(row);
    facts.append(made("b", "", shown(set.scores[row])), ` at ${percentile(row).toFixed(1)}%`, bounds ? `, ${bounds}` : "");
    text.append(made("bdi", "name", set.keys[row]), facts);
    if (bounds) text.append(bar(row));
    if (said) text.append(made("div", "marks", said));
    item.append(box, look, text);
    return item;
  };

  const say = () => {
    by("found").textContent = `${counted(found.length)} of ${counted(set.keys.length)} ${explorer.dataset.nouns} found, ${counted(set.ticked.size)} ticked`;
    by("copy").disabled = by("download").disabled = by("tick-none").disabled = set.ticked.size === 0;
    by("tick-found").disabled = found.length === 0;
  };
  const draw = () => {
    const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
    page = Math.max(0, Math.min(pages - 1, page));
    entries.replaceChildren(...found.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(entry));
    by("page").textContent = `page ${counted(page + 1)} of ${counted(pages)}`;
    by("previous").disabled = page === 0;
    by("next").disabled = page === pages - 1;
    say();
  };
  const search = () => {
    const text = by("search").value.toLowerCase(), from = by("from").valueAsNumber, to = by("to").valueAsNumber;
    const only = by("only").value, group = by("group").value, once = by("once").checked, order = by("order").value;
    const wanted = only === "ticked" ? set.ticked : only ? set.has[only] : null;
    found = [];
    for (let row = 0; row < set.keys.length; row++) {
      const score = set.scores[row];
      if (score < from || score > to) continue;
      if (wanted && !wanted.has(row)) continue;
      if (group !== "" && set.group[row] !== Number(group)) continue;
      if (once && set.family.has(row) && set.family.get(row)[0] !== row) continue;
      if (text && !set.lower[row].includes(text)) continue;
      found.push(row);
    }
    if (order === "typical") found.reverse();
    if (order === "ticked") found = [...found.filter((row) => set.ticked.has(row)), ...found.filter((row) => !set.ticked.has(row))];
    if (order === "key") {
      if (!set.byKey) {
        const sorted = set.keys.map((_, row) => row).sort((a, b) => set.keys[a] < set.keys[b] ? -1 : 1);
        set.byKey = new Uint32Array(sorted.length);
        sorted.forEach((row, place) => { set.byKey[row] = place; });
      }
      found.sort((a, b) => set.byKey[a] - set.byKey[b]);
    }
    page = 0;
    draw();
  };
  const options = (select, pairs) => select.replaceChildren(...pairs.map(([value, text]) => {
    const option = made("option", "", text);
    option.value = value;
    return option;
  }));
  const choose = async (number) => {
    chosen = number;
    set = await load(number);
    const kinds = Object.entries(set.marks).filter(([, rows]) => rows.length);
    options(by("only"), [["", `all ${explorer.dataset.nouns}`], ...kinds.map(([word, rows]) => [word, `${word} (${counted(rows.length)})`]), ["ticked", "ticked"]]);
    by("group-label").hidden = !set.groups;
    options(by("group"), [["", "all"], ...(set.groups ?? []).map((name, code) => [String(code), name])]);
    entries.classList.toggle("clips", set.frames > 1);
    entries.style.setProperty("--frames", set.frames);
    by("once-label").hidden = set.alike.length === 0;
    by("from").placeholder = shown(set.scores[0]);
    by("to").placeholder = shown(set.scores.at(-1));
    search();
  };

  // One picture, large, with all that is known of it.
  const enlarge = (row, from) => {
    open = row;
    opener = from ?? opener;
    const holder = dialog.querySelector(".shown"), list = dialog.querySelector("dl"), link = by("enlarged-open");
    const picture = made("img");
    picture.alt = set.keys[row];
    if (set.pictures[row]) picture.src = set.pictures[row];
    holder.replaceChildren(set.pictures[row] ? picture : made("p", "note", "This page has no picture of it."));
    by("enlarged-key").replaceChildren(made("bdi", "", set.keys[row]));
    const facts = [["score", `${shown(set.scores[row])} nats`], ["percentile", percentile(row).toFixed(2)]];
    if (set.low) facts.push(["method", set.has.predicted.has(row) ? "predicted from one forward pass" : "exact"]);
    if (interval(row)) facts.push(["the exact score lies within", interval(row)]);
    if (set.groups) facts.push(["group", set.groups[set.group[row]]]);
    if (words(row)) facts.push(["noted", words(row)]);
    const same = (set.family.get(row) ?? []).filter((other) => other !== row);
    if (same.length) facts.push(["near-duplicates", same.slice(0, 20).map((other) => set.keys[other]).join(", ") + (same.length > 20 ? ` and ${same.length - 20} more` : "")]);
    list.replaceChildren(...facts.map(([name, value]) => {
      const pair = made("div"), term = made("dt", "", name), description = made("dd");
      description.append(made("bdi", "", value));
      pair.append(term, description);
      if (name === "the exact score lies within") pair.append(bar(row));
      return pair;
    }));
    link.hidden = !(set.paths[row] ?? "").startsWith("/");
    if (!link.hidden) link.href = "file://" + set.paths[row].split("/").map(encodeURIComponent).join("/");
    by("enlarged-tick").textContent = set.ticked.has(row) ? "Untick" : "Tick";
    const place = found.indexOf(row);
    by("enlarged-previous").disabled = place < 1;
    by("enlarged-next").disabled = place < 0 || place === found.length - 1;
    if (!dialog.open) dialog.showModal();
  };
  const beside = (step) => {
    const row = found[found.indexOf(open) + step];
    if (row !== undefined && found.includes(open)) enlarge(row);
  };
  by("enlarged-previous").addEventListener("click", () => beside(-1));
  by("enlarged-next").addEventListener("click", () => beside(1));
  by("enlarged-tick").addEventListener("click", () => {
    set.ticked[set.ticked.has(open) ? "delete" : "add"](open);
    enlarge(open);
    draw();
  });
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) { event.preventDefault(); beside(step); }
  });
  dialog.addEventListener("close", () => opener?.isConnected && opener.focus());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  // What is ticked, as one key a line.
  const taken = () => [...set.ticked].sort((a, b) => a - b).map((row) => set.raw[row] ?? set.keys[row]).join("\n") + "\n";
  by("copy").addEventListener("click", async () => {
    const text = taken(), area = by("taken");
    try {
      await navigator.clipboard.writeText(text);
      by("found").textContent = `${counted(set.ticked.size)} keys copied`;
    } catch {
      area.hidden = false;
      area.value = text;
      area.focus();
      area.select();
      by("found").textContent = "The browser keeps the clipboard to itself: copy the keys from the box below";
    }
  });
  by("download").addEventListener("click", () => {
    const link = made("a");
    link.href = URL.createObjectURL(new Blob([taken()], { type: "text/plain" }));
    link.download = "keys.txt";
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
  by("tick-found").addEventListener("click", () => { for (const row of found) set.ticked.add(row); draw(); });
  by("tick-none").addEventListener("click", () => { set.ticked.clear(); search(); });
  by("filters").addEventListener("submit", (event) => event.preventDefault());
  by("filters").addEventListener("input", (event) => { if (event.target.id === "set") choose(Number(event.target.value)); else search(); });
  for (const [id, step] of [["previous", -1], ["next", 1]]) by(id).addEventListener("click", () => { page += step; draw(); entries.scrollIntoView({ block: "nearest" }); });

  // Pictures of the gallery enlarge as well.
  const begin = async () => {
    await choose(0);
    explorer.hidden = false;
    by("without-script").hidden = true;
    for (const image of document.querySelectorAll(".tile img[data-rank]")) {
      const button = made("button", "open");
      button.type = "button";
      button.setAttribute("aria-label", `Enlarge: ${image.alt}`);
      image.replaceWith(button);
      button.append(image);
      button.addEventListener("click", async () => {
        const number = Number(image.dataset.set);
        if (number !== chosen) { by("set").value = String(number); await choose(number); }
        const row = set.row(Number(image.dataset.rank));  // a random image of a very large set may not be listed
        if (row !== undefined) enlarge(row, button);
      });
    }
    root.dataset.ready = "yes";
  };
  if (typeof DecompressionStream !== "undefined") begin();
})();
