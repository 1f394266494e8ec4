/** Light, dark, or as the system has it. */
import { button } from "./dom";

const THEMES = ["auto", "light", "dark"] as const;

export function themeButton(): HTMLElement {
  let at = 0;
  const made = button("Theme: auto", () => {
    at = (at + 1) % THEMES.length;
    const theme = THEMES[at] ?? "auto";
    document.documentElement.dataset.theme = theme;
    made.textContent = `Theme: ${theme}`;
  }, { class: "theme", title: "Light, dark, or as the system has it" });
  return made;
}
