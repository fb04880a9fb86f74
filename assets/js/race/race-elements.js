// Defines the elements of the race.

import { RacePanel } from "./race-panel.js";

/** Called once, as the page starts. */
export function defineRace() {
  customElements.define("quest-race", RacePanel);
}
