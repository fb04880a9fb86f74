// Defines the elements of the conversation: questions, answers, their sources.

import { markAnswers } from "./answer-markers.js";
import { AnswerRow } from "./answer-row.js";
import { AskAgain } from "./ask-again.js";
import { keepDrafts, UnansweredQuestion } from "./drafts.js";
import { followConversation } from "./following.js";
import { keepLatestInView } from "./latest.js";
import { askBeforeLinks } from "./links.js";
import { Passages } from "./passages.js";
import { askFromBox } from "./question.js";
import { QuestionBubble } from "./question-bubble.js";
import { askFromStart, ReadingLine } from "./start.js";
import { reachWideParts } from "./wide-parts.js";

/** Called once, as the page starts: before the elements that tell of conversations which are opened. */
export function defineChat() {
  keepDrafts();
  followConversation();
  customElements.define("quest-question", QuestionBubble);
  customElements.define("quest-unanswered", UnansweredQuestion);
  customElements.define("quest-passages", Passages);
  customElements.define("quest-answer-row", AnswerRow);
  customElements.define("quest-ask-again", AskAgain);
  customElements.define("quest-reading-line", ReadingLine);
  markAnswers();
  reachWideParts();
  askFromBox();
  askFromStart();
  keepLatestInView();
  askBeforeLinks("#messages");
}
