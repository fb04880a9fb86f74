// One line above the question for what keeps every answer from coming: the server is gone, there is no model, or another
// engine does not answer.

import { server } from "./connection.js";
import { askForDialog } from "../desk/dialogs.js";

const LOST = "Quest Chat cannot be reached. Is it still running? This page goes on by itself when it is back.";
const ASKS_FOR_KEY = "Quest Chat asks for another key. Reload this page to enter it.";
const WITHOUT_ENGINE = "To have a model of this machine answer, start Quest Chat without --engine-url.";

/** What keeps every answer from coming, "" if nothing does, and whether another model may be chosen here. */
export function obstacle({ reachable, asksForKey, stage, message, engine }) {
  if (!reachable) return { text: asksForKey ? ASKS_FOR_KEY : LOST, offersModels: false };
  if (stage !== "failed") return { text: "", offersModels: false };
  if (engine) return { text: `${message} ${WITHOUT_ENGINE}`, offersModels: false };
  return { text: `There is no model: ${message}`, offersModels: true };
}

export class ConnectionLine extends HTMLElement {
  connectedCallback() {
    if (this.words) return;
    this.words = document.createElement("span");
    this.choose = document.createElement("button");
    this.choose.type = "button";
    this.choose.textContent = "Choose a model";
    this.choose.addEventListener("click", () => askForDialog("models"));
    this.append(this.words, this.choose);
    this.setAttribute("role", "alert");
    window.addEventListener("quest-server", () => this.show());
    this.show();
  }

  show() {
    const { text, offersModels } = obstacle(server);
    if (this.words.textContent !== text) this.words.textContent = text;
    this.choose.hidden = !offersModels;
    this.hidden = !text;
  }
}
