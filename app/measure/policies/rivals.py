"""The rivals of Quest by name, and sessions that attend as one of them.

`docs/evaluation.md` has what each loses.
"""

from __future__ import annotations

from dataclasses import replace

from app.measure.policies import POLICIES
from app.measure.policies.page_policies import OraclePages, PagePolicy, PagePolicyMethod, RaasPages, StreamingPages
from app.measure.policies.token_eviction import H2OEviction, TokenEviction, TovaEviction
from app.settings import AppSettings
from quest_core.config import EngineConfig
from quest_core.decode.attention import AttentionMethod
from quest_core.engine import Engine
from quest_core.session import Session

PAGE_POLICIES: dict[str, type[PagePolicy]] = {
    "oracle": OraclePages,
    "streaming": StreamingPages,
    "raas": RaasPages,
}
TOKEN_POLICIES: dict[str, type[TokenEviction]] = {"h2o": H2OEviction, "tova": TovaEviction}


def engine_config(settings: AppSettings, context_tokens: int) -> EngineConfig:
    """What an engine is loaded with for sessions of `settings.selection`, which may be a rival."""
    if settings.selection in POLICIES:
        # Of all rivals RaaS alone looks at summaries, and these are the bounds of Quest's paper.
        settings = replace(settings, selection="quest")
    return settings.engine_config(context_tokens)


def open_session(engine: Engine, selection: str) -> Session:
    """A session that attends by `selection`, which may be a rival, of an engine that `engine_config` describes."""
    return engine.new_session(policy_method(engine, selection) if selection in POLICIES else None)


def policy_method(engine: Engine, policy: str) -> AttentionMethod:
    """How one session attends with a policy."""
    quest = engine.quest_method
    if policy in TOKEN_POLICIES:
        return TOKEN_POLICIES[policy](quest, engine.model_config.num_query_heads, engine.context_tokens)
    return PagePolicyMethod(quest, PAGE_POLICIES[policy])
