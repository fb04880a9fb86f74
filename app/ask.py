"""`ask`: questions about documents, in the terminal.

The answer goes to stdout and everything else to stderr, so that output can be piped. Knows the assistant only.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path

from app.chat.answers.answer import AnswerOptions, AnswerReport, DocumentReading, Finished, PrefillEvent, TokenEvent
from app.chat.answers.engine_words import engine_cut_words, estimate_words
from app.chat.answers.reads.reading_words import reading_words
from app.chat.assistant import Assistant
from app.chat.conversations.conversation import Conversation
from app.chat.prompt.passage_notes import passage_notes
from app.chat.prompt.plan import DEFAULT_SYSTEM_PROMPT
from app.chat.reading.stretch_notes import reread_note
from app.errors import UserFacingError
from app.evidence.source_lines import source_lines
from app.library import addition_notes
from app.models.model_loader import DEMONSTRATION_NOTE, LARGER_MODEL
from app.progress_line import ProgressLine
from app.questions_file import read_questions
from app.settings import AppSettings

# What was read is written while the answer is made; at its end hardly anything is left.
_FLUSH_S = 60.0


def run_ask(settings: AppSettings, arguments: argparse.Namespace) -> int:
    """Answer the questions of a parsed command line; returns the exit code.

    Args:
        settings: which model, and how.
        arguments: documents, question or questions (a file), json, password, ocr, no_cache, max_new_tokens,
            temperature, top_p, seed, system_prompt; model, None for the one that was chosen last in the page.

    Raises:
        UserFacingError: for whatever stops it.
    """
    questions = [arguments.question] if arguments.questions is None else read_questions(arguments.questions)
    options = AnswerOptions(
        attention=settings.attention,
        token_budget=settings.token_budget,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        max_new_tokens=arguments.max_new_tokens,
        system_prompt=arguments.system_prompt or DEFAULT_SYSTEM_PROMPT,
        seed=arguments.seed,
    )
    # A value out of range is told before anything is read.
    options.sampling_config(stop_token_ids=())
    progress = ProgressLine(sys.stderr)
    with closing(_assistant(settings, arguments)) as assistant:
        if assistant.notice:
            progress.show(assistant.notice, last=True)
        # The model loads while the documents are read.
        assistant.start_loading()
        conversation = assistant.new_conversation(kept=False)
        for path in arguments.documents:
            _add_document(assistant, conversation, path, arguments, progress)
        progress.show("Loading the model")
        assistant.wait_until_ready()
        status = assistant.status()
        progress.show(" ".join(filter(None, (status.notice, status.message, status.warning))), last=True)
        if status.demonstration:
            progress.show(f"{DEMONSTRATION_NOTE} {LARGER_MODEL}", last=True)
        for question in questions:
            if not arguments.json and len(questions) > 1:
                print(f"> {question}", flush=True)
            report = _answer(assistant, conversation, question, options, progress, stream=not arguments.json)
            if arguments.json:
                print(json.dumps(report.to_json(), ensure_ascii=False), flush=True)
            else:
                for line in source_lines(report):
                    progress.show(line, last=True)
                progress.show(_summary(report), last=True)
        if not assistant.flush_snapshots(_FLUSH_S):
            progress.show("What was read could not be kept as a whole; the next time it is read in part.", last=True)
    return 0


def _assistant(settings: AppSettings, arguments: argparse.Namespace) -> Assistant:
    # Beside a server, the library and what its model has read are used as they are.
    remembers_model = arguments.model is None
    return Assistant(settings, keep=not arguments.no_cache, beside_another=True, remembers_model=remembers_model)


def _add_document(
    assistant: Assistant, conversation: Conversation, path: Path, arguments: argparse.Namespace, progress: ProgressLine
) -> None:
    present = assistant.documents(conversation)
    for entry in assistant.read_document(conversation, path, arguments.password, arguments.ocr):
        if entry.recognition is not None:
            progress.show(f"Recognising text in {entry.name}: {100 * entry.recognition:.0f} %")
        elif entry.state == "reading":
            share = f": {100 * entry.progress:.0f} %" if entry.progress is not None else ""
            progress.show(f"Reading {path.name}{share}")
    if entry.state != "read":
        hint = " Or add --ocr: its text is recognised then, with Tesseract." if entry.can_be_recognised else ""
        raise UserFacingError(entry.recognition_message or entry.message + hint)
    if entry.recognition_message:
        progress.show(entry.recognition_message, last=True)
    document = assistant.library.document(entry.document_id)
    if any(other.document_id == entry.document_id for other in present):
        progress.show(f"{path.name} has the same content as {document.shown_name} and was not added again.", last=True)
        return
    pages = f"{document.page_count} page{'s' * (document.page_count != 1)}"
    progress.show(f"Read {document.shown_name}: {pages}", last=True)
    for note in addition_notes(document, present):
        progress.show(note, last=True)


def _answer(
    assistant: Assistant,
    conversation: Conversation,
    question: str,
    options: AnswerOptions,
    progress: ProgressLine,
    stream: bool,
) -> AnswerReport:
    thinks = False
    with closing(assistant.answer(conversation, question, options)) as events:
        for event in events:
            if isinstance(event, DocumentReading):
                progress.show(f"Reading {event.name}")
            elif isinstance(event, PrefillEvent):
                read = event.progress
                progress.show(_prefill_text(event), last=read.done_tokens == read.total_tokens)
            elif isinstance(event, TokenEvent):
                if event.thinking_tokens and not event.answer:
                    thinks = True
                    progress.show(f"Thinking: {event.thinking_tokens} tokens")
                elif thinks:
                    thinks = False
                    progress.show(f"Thought: {event.thinking_tokens} tokens", last=True)
                if stream:
                    print(event.text_delta, end="", flush=True)
            elif isinstance(event, Finished):
                if stream:
                    print(flush=True)
                if event.report.finish_reason == "engine":
                    progress.show(engine_cut_words(event.report), last=True)
                if event.report.warning:
                    progress.show(event.report.warning, last=True)
                return event.report
    raise AssertionError("an answer ends with Finished")


def _prefill_text(event: PrefillEvent) -> str:
    read = event.progress
    text = f"Prefill: {read.done_tokens} of {read.total_tokens} tokens"
    if read.reused_tokens:
        restored = f", {read.restored_tokens} from the disk" if read.restored_tokens else ""
        text += f" ({read.reused_tokens} reused{restored})"
    if event.remaining_s:
        text += f", {event.remaining_s:.0f} s left"
    if read.stretch_changed:
        text += f"; {reread_note(read.stretch_factor)}"
    return text


def _summary(report: AnswerReport) -> str:
    parts = [f"{report.decode_tokens} tokens, {report.decode_tokens_per_s:.1f} tokens/s", reading_words(report)]
    if report.is_empty and report.finish_reason != "engine":
        parts.insert(0, "the model ended its answer before its first word")
    if report.drafted_tokens:
        parts.append(f"{report.accepted_tokens} of {report.drafted_tokens} drafted tokens accepted")
    if report.stretch_factor != 1.0:
        parts.append(f"positions stretched {report.stretch_factor:.3g} times")
    if report.tokens_estimated:
        parts.append(estimate_words(report))
    parts.extend(passage_notes(report))
    return "; ".join(parts)
