// What a browser makes of the report: node page.mjs <page.html> <folder for screenshots>; prints one line of JSON.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [page, folder] = process.argv.slice(2);
const axe = createRequire(import.meta.url).resolve("axe-core");
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
const found = { errors: [], requests: [], violations: {} };

async function open(name, options) {
  const tab = await (await browser.newContext(options)).newPage();
  tab.on("console", (message) => message.type() === "error" && found.errors.push(message.text()));
  tab.on("pageerror", (error) => found.errors.push(String(error)));
  tab.on("request", (request) => found.requests.push(request.url().slice(0, 80)));
  await tab.goto(pathToFileURL(page).href);
  await tab.screenshot({ path: `${folder}/${name}.png`, fullPage: name === "desktop" });
  await tab.addScriptTag({ path: axe });
  const { violations } = await tab.evaluate("axe.run()");
  found.violations[name] = violations.map(({ id, nodes }) => `${id}: ${nodes[0].html.slice(0, 200)}`);
  found[name] = { overflow: await tab.evaluate("document.documentElement.scrollWidth - innerWidth") };
  return tab;
}

const background = "getComputedStyle(document.body).backgroundColor";
const tab = await open("desktop", { viewport: { width: 1280, height: 900 }, colorScheme: "light" });
const light = await tab.evaluate(background);
await tab.getByRole("button", { name: "Dark or light" }).click();
found.themes = [light, await tab.evaluate(background)];

const table = tab.locator("main table").first();
const cells = () => table.locator("tbody tr td:nth-child(3)").allTextContents();
const head = table.locator("thead th:nth-child(3)");
await head.getByRole("button").click();
found.ascending = await cells();
await head.getByRole("button").click();
found.descending = await cells();
found.sorted = await head.getAttribute("aria-sort");

const link = tab.locator('td a[href*="-"]').filter({ hasText: "[" }).first();
const target = (await link.getAttribute("href")).slice(1);
await link.click();
await tab.waitForTimeout(200);
found.opened = await tab.evaluate((id) => document.getElementById(id).open, target);
found.behind = await tab.evaluate((id) => document.getElementById(id).querySelector("pre").checkVisibility(), target);

await open("phone", { viewport: { width: 390, height: 844 }, colorScheme: "dark", isMobile: true });
await browser.close();
console.log(JSON.stringify(found));
