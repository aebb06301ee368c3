"""
No option is parsed and ignored: each option of sources, sinks, stores, pipelines, guards and `run` has an effect.

A row is one of two things. `Two` gives two values for a place of a configuration: the same calls are made of a gateway
with each, and what was seen of them must differ. `By` names the tests that show the option, where it takes sockets,
processes or files; they must exist, and mention it.

A new option without a row fails here, and so does a row whose option is gone. Stages:
`tests/middlewares/test_no_inert_option.py`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import frozen

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.config.declarations import options_of
from sluiceway.pipeline.config.describe import groups_in
from sluiceway.pipeline.config.keys import PipelineKeys, SinkKeys, SourceKeys, StageKeys
from sluiceway.pipeline.model.component import ComponentKind, Sink
from sluiceway.pipeline.model.document import Limits, Run
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.registry import BUILT_IN, Registry
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.model.when import When
from sluiceway.pipeline.protocol.messages import Notification, Reply, Result
from sluiceway.pipeline.testing import FakeSink, PipelineHarness

TESTS = Path(__file__).resolve().parent
PROGRESS = Notification("notifications/progress", {"progressToken": 1, "progress": 1})


@frozen
class Two:
    """Two values at one place of a configuration, and what else is set; `sink` uses the real one."""

    path: str
    one: Any
    other: Any
    given: Mapping[str, Any] = {}
    real: bool = False


@frozen
class By:
    """Tests that show an option, as `file::function`, and the word they must mention if it is not its name."""

    test: str
    word: str = ""


def _when(key: str, value: str) -> Two:
    """A stage that leaves a trace on replies, for everybody or for some."""
    guarded = [{"headers": {"add": {"x-trace": "1"}, "when": {key: [value]}}}]
    return Two("pipelines.main.chain", [{"headers": {"add": {"x-trace": "1"}}}], guarded)


def _stage(one: Mapping[str, Any], other: Mapping[str, Any]) -> Two:
    return Two("pipelines.main.chain", [{"headers": {**one}}], [{"headers": {**other}}])


def _limit(key: str, one: Any, other: Any, **given: Any) -> Two:
    return Two(f"pipelines.main.{key}", one, other, {f"pipelines.main.{k}": v for k, v in given.items()})


def _embedded(key: str, one: Any, other: Any) -> Two:
    return Two(f"sinks.up.embedded.{key}", one, other, real=True)


ADMIN = "integration/test_process_options.py::test_admin_serves_status_where_bind_says_and_for_its_token"
LOG = "integration/test_process_options.py::test_log_level_and_log_format_shape_what_is_written"

TAPE = "pipeline/replay/test_recording.py::"
TRAIL = "transports/test_audit_trail.py::"
ALERTS = "pipeline/telemetry/test_alerts.py::"
ALERTING = "pipeline/runtime/test_alerting.py::"

ROWS: Mapping[str, Two | By] = {
    "limits.max_in_flight": _limit("max_in_flight", 1, 2),
    "limits.max_listeners": _limit("max_listeners", 1, 2),
    "limits.max_waiting": _limit("max_waiting", 1, 2, max_in_flight=1),
    "limits.timeout": _limit("timeout", "5s", "15s"),
    "limits.timeout_max": _limit("timeout_max", "15s", "60s", timeout="9s"),
    "limits.timeout_on_progress": _limit("timeout_on_progress", "reset", "keep", timeout="9s"),
    "limits.wait_at_most": _limit("wait_at_most", "1s", "9s", max_in_flight=1, max_waiting=9),
    "pipeline.sink": Two("pipelines.main.sink", "up", "spare"),
    "sink.http.allow_private": By(
        "transports/test_http_sink.py::test_a_name_that_leads_to_a_private_address_is_refused_unless_allow_private_is_set"
    ),
    "sink.http.connect_timeout": By(
        "transports/test_http_sink.py::test_connecting_takes_no_longer_than_connect_timeout"
    ),
    "sink.http.translate": By(
        "transports/http_upstream/test_legacy.py::test_a_sink_that_is_said_to_be_modern_opens_no_session"
    ),
    "sink.http.era": By("transports/http_upstream/test_modern.py::test_a_sink_that_is_said_to_be_legacy_asks_nobody"),
    "sink.http.follow_name": By(
        "transports/http_upstream/test_following.py::test_a_sink_that_follows_its_name_moves_and_tells_of_it"
    ),
    "sink.http.headers": By("transports/test_http_sink.py::test_headers_hold_secrets_that_are_resolved_when_it_opens"),
    "sink.http.http2": By(
        "transports/http_upstream/test_http2.py::test_http2_is_spoken_where_the_handshake_chooses_it"
    ),
    "sink.http.idle_timeout": By("transports/http_upstream/test_modern.py::test_a_silent_stream_is_given_up"),
    "sink.http.keep_idle": By("transports/test_http_sink.py::test_connections_at_rest_are_closed_after_keep_idle"),
    "sink.http.max_connections": By(
        "transports/http_upstream/test_modern.py::test_calls_wait_for_a_connection_and_no_more_than_may"
    ),
    "sink.http.max_message": By("transports/http_upstream/test_modern.py::test_a_message_over_the_limit_is_cut"),
    "sink.http.max_streams": By(
        "transports/http_upstream/test_modern.py::test_streams_do_not_take_the_connections_of_calls"
    ),
    "sink.http.max_waiting": By(
        "transports/http_upstream/test_modern.py::test_calls_wait_for_a_connection_and_no_more_than_may"
    ),
    "sink.http.oauth": By("transports/http_upstream/test_oauth.py::test_one_token_serves_everybody_until_it_expires"),
    "sink.http.oauth.client_id": By(
        "transports/http_upstream/test_oauth.py::test_the_request_for_a_token_is_the_standards", "gate"
    ),
    "sink.http.oauth.client_secret": By(
        "transports/http_upstream/test_oauth.py::test_the_request_for_a_token_is_the_standards", "s%3A"
    ),
    "sink.http.oauth.resource": By(
        "transports/http_upstream/test_oauth.py::test_the_request_for_a_token_is_the_standards"
    ),
    "sink.http.oauth.scope": By(
        "transports/http_upstream/test_oauth.py::test_the_request_for_a_token_is_the_standards"
    ),
    "sink.http.oauth.token_url": By(
        "transports/http_upstream/test_oauth.py::test_the_request_for_a_token_is_the_standards", "token"
    ),
    "sink.http.proxy": By("transports/test_http_sink.py::test_a_proxy_tunnels_to_the_upstream"),
    "sink.http.proxy_auth": By("transports/test_http_sink.py::test_a_proxy_is_shown_proxy_auth"),
    "sink.http.proxy_auth.password": By("transports/test_http_sink.py::test_a_proxy_is_shown_proxy_auth"),
    "sink.http.proxy_auth.user": By("transports/test_http_sink.py::test_a_proxy_is_shown_proxy_auth"),
    "sink.http.tls": By("transports/test_http_sink.py::test_tls_trusts_what_ca_names"),
    "sink.http.tls.ca": By("transports/test_http_sink.py::test_tls_trusts_what_ca_names"),
    "sink.http.tls.cert": By("transports/test_http_sink.py::test_tls_shows_the_client_certificate"),
    "sink.http.tls.key": By("transports/test_http_sink.py::test_tls_shows_the_client_certificate"),
    "sink.http.url": By("transports/test_http_sink.py::test_calls_share_a_connection"),
    "sink.max_in_flight": Two("sinks.up.max_in_flight", 1, 2),
    "sink.required": Two("sinks.up.required", True, False),
    "source.pipeline": Two("sources.in.pipeline", "main", "side"),
    "stage.enabled": _stage({"enabled": True}, {"enabled": False}),
    "stage.id": _stage({"id": "one"}, {"id": "other"}),
    "stage.when": _when("method", "tools/call"),
    "when.caller": _when("caller", "ana"),
    "when.method": _when("method", "tools/*"),
    "when.name": _when("name", "work"),
    "when.source": _when("source", "in"),
    "when.tenant": _when("tenant", "acme"),
    "run.error_codes": Two("run.error_codes", "spec", "legacy", {"pipelines.main.max_in_flight": 1}),
    "run.alerts": By(ALERTING + "test_an_alert_fires_and_clears_on_the_gateways_clock"),
    "run.alerts.every": By(ALERTING + "test_every_says_how_often_is_looked"),
    "run.alerts.preset": By(ALERTING + "test_preset_none_has_only_rules_of_ones_own"),
    "run.alerts.rules": By(ALERTING + "test_preset_none_has_only_rules_of_ones_own"),
    "run.alerts.rules.above": By(ALERTS + "test_an_alert_goes_from_phase_to_phase", "value"),
    "run.alerts.rules.after": By(ALERTS + "test_rows_figures_and_rules_tell_what_fires"),
    "run.alerts.rules.at_least": By(ALERTS + "test_a_share_of_too_little_says_nothing"),
    "run.alerts.rules.below": By(ALERTS + "test_a_share_of_too_little_says_nothing"),
    "run.alerts.rules.by": By(ALERTS + "test_samples_of_a_group_are_added_up"),
    "run.alerts.rules.clear": By(ALERTS + "test_a_firing_alert_stays_until_clear"),
    "run.alerts.rules.figure": By(
        ALERTS + "test_figures_are_named_as_metrics_show_them_or_without_what_all_have_in_common"
    ),
    "run.alerts.rules.labels": By(
        ALERTS + "test_figures_are_named_as_metrics_show_them_or_without_what_all_have_in_common"
    ),
    "run.alerts.rules.severity": By(ALERTS + "test_rows_figures_and_rules_tell_what_fires"),
    "run.alerts.rules.share_of": By(ALERTS + "test_a_share_of_too_little_says_nothing"),
    "run.alerts.rules.summary": By(ALERTS + "test_rows_figures_and_rules_tell_what_fires"),
    "run.alerts.rules.within": By(ALERTS + "test_what_counters_had_reached_before_anybody_looked_is_not_added"),
    "run.drain_timeout": Two("run.drain_timeout", "3s", "100s"),
    "run.admin": By(ADMIN),
    "run.admin.bind": By(ADMIN),
    "run.admin.token": By(ADMIN),
    "run.log_format": By(LOG),
    "run.log_level": By(LOG),
    "run.on_crash": By("pipeline/runtime/test_engine.py::test_a_crashed_sink_is_reopened_when_it_may_be"),
    "run.hang_timeout": By("pipeline/runtime/workers/test_pulse.py::test_whoever_has_less_time_is_asked_more_often"),
    "run.workers": By(
        "integration/workers/test_workers.py::test_a_worker_that_is_killed_takes_its_own_calls_with_it_and_is_replaced"
    ),
    "run.record": By(TAPE + "test_folder_gets_a_tape_for_each_start"),
    "run.record.compress": By(TAPE + "test_compress_writes_gzip"),
    "run.record.config": By(TAPE + "test_config_writes_the_text_of_the_files"),
    "run.record.folder": By(TAPE + "test_folder_gets_a_tape_for_each_start"),
    "run.record.headers": By(TAPE + "test_headers_are_kept_if_they_are_named"),
    "run.record.keep_for": By(TAPE + "test_keep_size_and_keep_for_drop_parts"),
    "run.record.keep_size": By(TAPE + "test_keep_size_and_keep_for_drop_parts"),
    "run.record.max_waiting": By(TAPE + "test_max_waiting_bounds_what_waits"),
    "run.record.min_free": By(TAPE + "test_with_less_than_min_free_nothing_is_recorded"),
    "run.record.part_for": By(TAPE + "test_part_size_and_part_for_begin_parts"),
    "run.record.part_size": By(TAPE + "test_part_size_and_part_for_begin_parts"),
    "run.record.redact": By(TAPE + "test_redact_masks_further_keys"),
    "run.record.stages": By(TAPE + "test_stages_are_recorded_one_by_one"),
    "run.stop_timeout": By(
        "pipeline/runtime/test_engine.py::test_a_component_that_hangs_at_stop_is_cancelled_at_the_stop_timeout"
    ),
    "sink.audit_trail.page_size": By(TRAIL + "test_filters_choose_and_pages_follow_each_other"),
    "sink.audit_trail.path": By(TRAIL + "test_a_trail_that_cannot_be_read_is_the_operators_to_know"),
    "sink.audit_trail.roles": By(TRAIL + "test_scopes_do_as_well"),
    "sink.audit_trail.scopes": By(TRAIL + "test_scopes_do_as_well"),
    "sink.balance.eject": By(
        "transports/balance/test_sink.py::test_failures_in_a_row_put_an_upstream_out_and_time_brings_it_back"
    ),
    "sink.balance.eject.base": By(
        "transports/balance/test_sink.py::test_failures_in_a_row_put_an_upstream_out_and_time_brings_it_back"
    ),
    "sink.balance.eject.consecutive": By(
        "transports/balance/test_sink.py::test_failures_in_a_row_put_an_upstream_out_and_time_brings_it_back"
    ),
    "sink.balance.eject.max": By(
        "transports/balance/test_sink.py::test_failures_in_a_row_put_an_upstream_out_and_time_brings_it_back"
    ),
    "sink.balance.eject.max_ejected": By("transports/balance/test_sink.py::test_only_a_share_may_be_out"),
    "sink.balance.eject.window": By("transports/balance/test_sink.py::test_failures_far_apart_are_not_in_a_row"),
    "sink.balance.hash": By("transports/balance/test_sink.py::test_keys_stay_where_they_are"),
    "sink.balance.hash.bounded_load": By("transports/balance/test_sink.py::test_a_bounded_load_spills_over"),
    "sink.balance.hash.by": By("transports/balance/test_sink.py::test_keys_stay_where_they_are"),
    "sink.balance.hash.virtual_nodes": By("transports/balance/test_sink.py::test_keys_stay_where_they_are"),
    "sink.balance.health": By("transports/balance/test_probes.py::test_it_takes_so_many_probes_to_change"),
    "sink.balance.health.healthy_after": By(
        "transports/balance/test_probes.py::test_it_takes_so_many_probes_to_change"
    ),
    "sink.balance.health.interval": By("transports/balance/test_sink.py::test_an_upstream_has_a_probe_of_its_own"),
    "sink.balance.health.probe": By("transports/balance/test_probes.py::test_pings_go_through_a_session_of_their_own"),
    "sink.balance.health.timeout": By(
        "transports/balance/test_sessions.py::test_a_session_of_an_upstream_that_probes_find_down_is_over"
    ),
    "sink.balance.health.unhealthy_after": By(
        "transports/balance/test_probes.py::test_it_takes_so_many_probes_to_change"
    ),
    "sink.balance.offers": By(
        "transports/balance/test_offers.py::test_a_request_goes_to_all_that_offer_it_and_to_nobody_else"
    ),
    "sink.balance.panic_threshold": By("transports/balance/test_sink.py::test_if_too_many_are_out_all_are_used"),
    "sink.balance.seal_key": By("transports/balance/test_affinity.py::test_what_no_upstream_has_any_more_cannot_go_on"),
    "sink.balance.slow_start": By("transports/balance/test_sink.py::test_who_is_back_starts_slowly"),
    "sink.balance.strategy": By("transports/balance/test_sink.py::test_weights_are_those_of_the_configuration"),
    "sink.balance.to": By("transports/balance/test_sink.py::test_weights_are_those_of_the_configuration"),
    "sink.balance.to.probe": By("transports/balance/test_sink.py::test_an_upstream_has_a_probe_of_its_own"),
    "sink.balance.to.weight": By("transports/balance/test_sink.py::test_weights_are_those_of_the_configuration"),
    "sink.embedded.expose": _embedded("expose", ["tools"], ["tools", "prompts"]),
    "sink.embedded.max_subscriptions": By(
        "transports/embedded/test_subscriptions.py::test_subscriptions_of_a_session_are_bounded"
    ),
    "sink.embedded.name": _embedded("name", None, "another"),
    "sink.embedded.page_size": _embedded("page_size", 1, 100),
    "sink.embedded.server": By("transports/embedded/test_sink.py::test_python_and_yaml_build_the_same_server"),
    "sink.embedded.state_key": By(
        "transports/embedded/test_sink.py::test_processes_that_share_a_key_continue_each_others_requests"
    ),
    "sink.embedded.store": By("transports/embedded/test_sink.py::test_the_named_store_is_the_handlers_store"),
    "sink.embedded.state_ttl": By(
        "transports/embedded/test_questions.py::test_a_state_expires_and_belongs_to_its_caller"
    ),
    "sink.embedded.version": _embedded("version", None, "9.9.9"),
    "sink.route.collisions": By("transports/route/test_lists.py::test_names_without_prefixes_collide_by_policy"),
    "sink.route.cursor_key": By(
        "transports/route/test_sink.py::test_ids_of_a_key_that_is_configured_are_read_by_another_process"
    ),
    "sink.route.list_timeout": By(
        "transports/route/test_lists.py::test_a_slow_upstream_is_left_out_and_announced_when_it_arrives"
    ),
    "sink.route.prefixes": By("transports/route/test_lists.py::test_names_without_prefixes_collide_by_policy"),
    "sink.route.rules": By("transports/route/test_calls.py::test_vendor_methods_go_by_rule"),
    "sink.route.rules.exact": By("transports/route/test_calls.py::test_vendor_methods_go_by_rule"),
    "sink.route.rules.glob": By("transports/route/test_calls.py::test_vendor_methods_go_by_rule"),
    "sink.route.rules.of": By("transports/route/test_calls.py::test_names_and_uris_go_by_rule"),
    "sink.route.rules.prefix": By("transports/route/test_calls.py::test_vendor_methods_go_by_rule"),
    "sink.route.rules.regex": By("transports/route/test_calls.py::test_vendor_methods_go_by_rule"),
    "sink.route.rules.to": By("transports/route/test_calls.py::test_vendor_methods_go_by_rule"),
    "sink.route.separator": By("transports/route/test_sink.py::test_another_separator_and_prefix"),
    "sink.route.to": By("transports/route/test_lists.py::test_filters_hide_and_renames_show"),
    "sink.route.to.prefix": By("transports/route/test_sink.py::test_another_separator_and_prefix"),
    "sink.route.to.prompts": By("transports/route/test_sink.py::test_another_separator_and_prefix"),
    "sink.route.to.prompts.allow": By("transports/route/test_calls.py::test_a_hidden_tool_cannot_be_called"),
    "sink.route.to.prompts.deny": By("transports/route/test_sink.py::test_another_separator_and_prefix"),
    "sink.route.to.prompts.rename": By("transports/route/test_calls.py::test_a_hidden_tool_cannot_be_called"),
    "sink.route.to.resources": By("transports/route/test_lists.py::test_filters_hide_and_renames_show"),
    "sink.route.to.resources.allow": By("transports/route/test_lists.py::test_only_allowed_uris_are_listed"),
    "sink.route.to.resources.deny": By("transports/route/test_lists.py::test_filters_hide_and_renames_show"),
    "sink.route.to.tools": By("transports/route/test_lists.py::test_filters_hide_and_renames_show"),
    "sink.route.to.tools.allow": By("transports/route/test_calls.py::test_a_hidden_tool_cannot_be_called"),
    "sink.route.to.tools.deny": By("transports/route/test_lists.py::test_filters_hide_and_renames_show"),
    "sink.route.to.tools.rename": By("transports/route/test_lists.py::test_filters_hide_and_renames_show"),
    "sink.stdio.command": By("transports/test_stdio_sink.py::test_a_child_runs_where_it_was_told_to"),
    "sink.stdio.cwd": By("transports/test_stdio_sink.py::test_a_child_runs_where_it_was_told_to"),
    "sink.stdio.env": By(
        "transports/test_stdio_sink.py::test_the_environment_of_a_child_is_an_allowlist_and_what_is_declared"
    ),
    "sink.stdio.translate": By("transports/translation/test_sinks.py::test_without_translate_clients_are_refused"),
    "sink.stdio.era": By("transports/test_stdio_era.py::test_what_is_configured_is_not_asked"),
    "sink.stdio.kill_grace": By("transports/test_stdio_sink_lifecycle.py::test_a_hard_cancel_kills_at_once"),
    "sink.stdio.max_children": By("transports/test_stdio_sink.py::test_children_are_bounded"),
    "sink.stdio.max_message": By(
        "transports/test_stdio_sink_lifecycle.py::test_an_endless_line_fails_its_request_and_memory_stays_bounded"
    ),
    "sink.stdio.max_pending": By("transports/test_multiplex.py::test_more_requests_than_max_pending_are_refused"),
    "sink.stdio.max_unsent": By(
        "transports/test_stdio_sink_lifecycle.py::test_a_child_that_never_reads_is_noticed_and_can_be_left"
    ),
    "sink.stdio.confine": By("transports/test_confinement.py::test_without_bubblewrap_a_confined_server_does_not_run"),
    "sink.stdio.confine.no_network": By("transports/test_confinement.py::test_no_network_leaves_a_loopback_alone"),
    "sink.stdio.confine.read_only_paths": By(
        "transports/test_confinement.py::test_only_read_only_paths_can_be_read_if_they_are_given"
    ),
    "sink.stdio.confine.user": By("transports/test_confinement.py::test_a_server_runs_as_the_user_it_was_given"),
    "sink.stdio.confine.writable_paths": By("transports/test_confinement.py::test_only_writable_paths_can_be_written"),
    "sink.stdio.lifetime": By("transports/test_shim.py::test_without_a_shim_nobody_stands_between"),
    "sink.stdio.limits": By("transports/test_server_limits.py::test_a_file_may_not_grow_beyond_file_size"),
    "sink.stdio.limits.cpu_time": By(
        "transports/test_server_limits.py::test_a_server_that_used_up_its_cpu_time_is_killed"
    ),
    "sink.stdio.limits.file_size": By("transports/test_server_limits.py::test_a_file_may_not_grow_beyond_file_size"),
    "sink.stdio.limits.memory": By(
        "transports/test_server_limits.py::test_memory_that_a_server_may_not_have_is_refused_to_it"
    ),
    "sink.stdio.limits.open_files": By("transports/test_server_limits.py::test_limits_are_what_the_options_say"),
    "sink.stdio.probe": By("transports/test_stdio_restarts.py::test_a_server_that_hangs_is_replaced"),
    "sink.stdio.probe.every": By("transports/test_stdio_restarts.py::test_a_server_that_hangs_is_replaced"),
    "sink.stdio.probe.failures": By("transports/test_stdio_restarts.py::test_a_server_that_hangs_is_replaced"),
    "sink.stdio.probe.timeout": By("transports/test_stdio_restarts.py::test_a_server_that_hangs_is_replaced"),
    "sink.stdio.restart": By("transports/test_stdio_restarts.py::test_the_state_is_reported_on_the_way_down_and_up"),
    "sink.stdio.restart.max": By("transports/test_restarts.py::test_too_many_deaths_in_the_period_are_a_quarantine"),
    "sink.stdio.restart.quarantine": By("transports/test_restarts.py::test_one_death_after_a_quarantine_is_another"),
    "sink.stdio.restart.within": By("transports/test_restarts.py::test_deaths_before_the_period_do_not_count"),
    "sink.stdio.stop_when_idle": By(
        "transports/test_stdio_restarts.py::test_the_shared_server_is_stopped_when_nobody_used_it_for_so_long"
    ),
    "sink.stdio.stderr_lines": By(
        "integration/test_process_options.py::test_stderr_lines_of_a_child_are_its_last_words"
    ),
    "sink.stdio.stop_grace": By("transports/test_stdio_sink_lifecycle.py::test_a_polite_child_is_not_signalled"),
    "source.http.aliases": By("integration/test_process_options.py::test_aliases_are_paths_of_their_own"),
    "source.http.allowed_hosts": By("transports/http_source/test_refusals.py::test_allowed_hosts_are_served"),
    "source.http.allowed_origins": By(
        "transports/http_source/test_refusals.py::test_pages_of_allowed_origins_may_ask_and_read"
    ),
    "source.http.bind": By("integration/test_process_options.py::test_bind_says_where_the_http_source_listens"),
    "source.http.body_grace": By("transports/http_source/test_limits.py::test_a_slow_body_is_cut_with_408"),
    "source.http.compress_from": By(
        "transports/http_source/test_compression.py::test_a_large_answer_is_compressed_for_who_accepts_it"
    ),
    "source.http.head_timeout": By("transports/http_source/test_limits.py::test_a_head_must_come_in_time"),
    "source.http.idle_timeout": By("transports/http_source/test_limits.py::test_a_connection_may_be_idle_for_so_long"),
    "source.http.keep_alive": By(
        "transports/http_source/test_modern_posts.py::test_a_slow_response_becomes_a_stream_with_comments"
    ),
    "source.http.max_body": By(
        "transports/http_source/test_limits.py::test_a_body_over_the_limit_is_refused_at_once_by_its_length"
    ),
    "source.http.max_connections": By(
        "transports/http_source/test_limits.py::test_connections_beyond_the_limit_are_turned_away"
    ),
    "source.http.max_sessions": By(
        "transports/http_source/test_legacy_posts.py::test_too_many_sessions_end_the_one_idle_longest_or_refuse"
    ),
    "source.http.min_body_rate": By(
        "transports/http_source/test_limits.py::test_a_body_that_keeps_the_rate_is_waited_for"
    ),
    "source.http.path": By("transports/http_source/test_refusals.py::test_other_paths_do_not_exist"),
    "source.http.resume_bytes": By(
        "transports/http_source/test_resumption.py::test_only_so_many_bytes_are_kept_and_the_oldest_stream_forgets_first"
    ),
    "source.http.resume_events": By("transports/http_source/test_resumption.py::test_only_so_many_events_are_kept"),
    "source.http.resume_window": By(
        "transports/http_source/test_resumption.py"
        "::test_an_exchange_nobody_comes_back_for_is_cancelled_after_the_resume_window"
    ),
    "source.http.session_idle": By(
        "transports/http_source/test_legacy_posts.py::test_an_idle_session_ends_and_a_busy_one_does_not"
    ),
    "source.http.sse": By("transports/http_source/test_legacy_sse.py::test_nothing_is_served_that_was_not_asked_for"),
    "source.http.sse.max_in_flight": By(
        "transports/http_source/test_legacy_sse.py::test_a_client_has_so_many_requests_under_way"
    ),
    "source.http.sse.max_unread": By(
        "transports/http_source/test_legacy_sse.py::test_a_client_that_does_not_read_costs_no_more_than_max_unread"
    ),
    "source.http.sse.path": By(
        "transports/http_source/test_legacy_sse.py::test_nothing_is_served_that_was_not_asked_for"
    ),
    "source.http.socket_access": By(
        "transports/http_source/test_server.py::test_socket_access_says_whose_processes_may_connect"
    ),
    "source.http.stall_timeout": By("integration/test_process_options.py::test_stall_timeout_is_the_kernels_to_keep"),
    "source.http.http2": By(
        "transports/http_source/http2/test_tls.py::test_http2_is_offered_over_tls_unless_it_is_turned_off", "http2"
    ),
    "source.http.max_streams": By(
        "transports/http_source/http2/test_bounds.py::test_a_stream_too_many_is_refused_and_the_others_go_on"
    ),
    "source.http.tls": By("transports/http_source/test_tls.py::test_requests_come_over_tls"),
    "source.http.tls.cert": By(
        "transports/http_source/test_tls.py::test_a_new_certificate_serves_who_comes_next", "tls"
    ),
    "source.http.tls.key": By("transports/http_source/test_tls.py::test_a_key_may_be_a_secret_and_encrypted"),
    "source.http.tls.key_password": By("transports/http_source/test_tls.py::test_a_key_may_be_a_secret_and_encrypted"),
    "source.http.tls.client_certs": By("transports/http_source/test_tls.py::test_who_is_let_in"),
    "source.http.tls.client_ca": By("transports/http_source/test_tls.py::test_who_is_let_in"),
    "source.http.tls.min_version": By("transports/http_source/test_tls.py::test_old_versions_are_not_spoken"),
    "source.http.tls.handshake_timeout": By(
        "transports/http_source/test_tls.py::test_a_handshake_takes_no_longer_than_handshake_timeout"
    ),
    "source.http.tls.max_handshakes": By(
        "transports/http_source/test_tls.py::test_of_too_many_handshakes_the_longest_is_broken_off"
    ),
    "source.http.websocket": By(
        "transports/websocket/test_beside_http.py::test_nobody_gets_a_websocket_where_none_was_configured"
    ),
    "source.http.websocket.path": By(
        "transports/websocket/test_beside_http.py::test_path_gives_websockets_a_place_of_their_own"
    ),
    "source.http.websocket.max_message": By(
        "transports/websocket/test_websocket_source.py::test_a_message_over_max_message_ends_the_connection_with_1009"
    ),
    "source.http.websocket.max_in_flight_per_connection": By(
        "transports/websocket/test_websocket_source.py::test_requests_beyond_max_in_flight_per_connection_are_refused_and_the_reader_goes_on"
    ),
    "source.http.websocket.max_unread": By(
        "transports/websocket/test_websocket_source.py::test_a_client_that_reads_nothing_holds_up_nobody_and_costs_max_unread"
    ),
    "source.http.websocket.ping_interval": By(
        "transports/websocket/test_websocket_source.py::test_ping_interval_and_ping_timeout_cut_a_client_that_gives_no_sign_of_life"
    ),
    "source.http.websocket.ping_timeout": By(
        "transports/websocket/test_websocket_source.py::test_ping_interval_and_ping_timeout_cut_a_client_that_gives_no_sign_of_life"
    ),
    "source.websocket.allowed_hosts": By(
        "transports/websocket/test_websocket_source.py::test_allowed_hosts_and_allowed_origins_admit_whom_they_name"
    ),
    "source.websocket.allowed_origins": By(
        "transports/websocket/test_websocket_source.py::test_allowed_hosts_and_allowed_origins_admit_whom_they_name"
    ),
    "source.websocket.bind": By(
        "transports/websocket/test_websocket_source.py::test_socket_access_says_whose_processes_may_connect_to_a_unix_socket"
    ),
    "source.websocket.head_timeout": By(
        "transports/websocket/test_websocket_source.py::test_head_timeout_ends_who_does_not_ask"
    ),
    "source.websocket.max_connections": By(
        "transports/websocket/test_websocket_source.py::test_max_connections_turns_others_away"
    ),
    "source.websocket.max_in_flight_per_connection": By(
        "transports/websocket/test_websocket_source.py::test_requests_beyond_max_in_flight_per_connection_are_refused_and_the_reader_goes_on"
    ),
    "source.websocket.max_message": By(
        "transports/websocket/test_websocket_source.py::test_a_message_over_max_message_ends_the_connection_with_1009"
    ),
    "source.websocket.max_unread": By(
        "transports/websocket/test_websocket_source.py::test_a_client_that_reads_nothing_holds_up_nobody_and_costs_max_unread"
    ),
    "source.websocket.path": By(
        "transports/websocket/test_websocket_source.py::test_path_is_where_the_endpoint_is_and_must_be_one"
    ),
    "source.websocket.ping_interval": By(
        "transports/websocket/test_websocket_source.py::test_ping_interval_and_ping_timeout_cut_a_client_that_gives_no_sign_of_life"
    ),
    "source.websocket.ping_timeout": By(
        "transports/websocket/test_websocket_source.py::test_ping_interval_and_ping_timeout_cut_a_client_that_gives_no_sign_of_life"
    ),
    "source.websocket.socket_access": By(
        "transports/websocket/test_websocket_source.py::test_socket_access_says_whose_processes_may_connect_to_a_unix_socket"
    ),
    "source.websocket.tls": By(
        "transports/websocket/test_websocket_source.py::test_tls_serves_wss_and_tells_which_certificate_a_client_showed"
    ),
    "source.websocket.tls.cert": By(
        "transports/websocket/test_websocket_source.py::test_tls_serves_wss_and_tells_which_certificate_a_client_showed"
    ),
    "source.websocket.tls.key": By(
        "transports/websocket/test_websocket_source.py::test_tls_serves_wss_and_tells_which_certificate_a_client_showed"
    ),
    "source.websocket.tls.client_certs": By(
        "transports/websocket/test_websocket_source.py::test_tls_serves_wss_and_tells_which_certificate_a_client_showed"
    ),
    "source.websocket.tls.client_ca": By(
        "transports/websocket/test_websocket_source.py::test_tls_serves_wss_and_tells_which_certificate_a_client_showed"
    ),
    "source.websocket.tls.key_password": By(
        "transports/http_source/test_tls.py::test_a_key_may_be_a_secret_and_encrypted"
    ),
    "source.websocket.tls.min_version": By("transports/http_source/test_tls.py::test_old_versions_are_not_spoken"),
    "source.websocket.tls.handshake_timeout": By(
        "transports/http_source/test_tls.py::test_a_handshake_takes_no_longer_than_handshake_timeout"
    ),
    "source.websocket.tls.max_handshakes": By(
        "transports/http_source/test_tls.py::test_of_too_many_handshakes_the_longest_is_broken_off"
    ),
    "sink.websocket.url": By(
        "transports/websocket/test_websocket_sink.py::test_modern_clients_share_one_connection_and_get_their_own_answers"
    ),
    "sink.websocket.translate": By(
        "transports/websocket/test_websocket_sink.py::test_era_refuses_clients_of_the_other_kind"
    ),
    "sink.websocket.era": By("transports/websocket/test_websocket_sink.py::test_era_refuses_clients_of_the_other_kind"),
    "sink.websocket.headers": By(
        "transports/websocket/test_websocket_sink.py::test_headers_and_secrets_go_into_the_request_that_opens_the_connection"
    ),
    "sink.websocket.tls": By(
        "transports/websocket/test_websocket_sink.py::test_tls_trusts_what_ca_names_and_shows_cert_with_its_key"
    ),
    "sink.websocket.tls.ca": By(
        "transports/websocket/test_websocket_sink.py::test_tls_trusts_what_ca_names_and_shows_cert_with_its_key"
    ),
    "sink.websocket.tls.cert": By(
        "transports/websocket/test_websocket_sink.py::test_tls_trusts_what_ca_names_and_shows_cert_with_its_key"
    ),
    "sink.websocket.tls.key": By(
        "transports/websocket/test_websocket_sink.py::test_tls_trusts_what_ca_names_and_shows_cert_with_its_key"
    ),
    "sink.websocket.allow_private": By(
        "transports/websocket/test_websocket_sink.py::test_a_name_that_leads_to_a_private_address_is_refused_unless_allow_private"
    ),
    "sink.websocket.oauth": By(
        "transports/websocket/test_sink_access.py::test_oauth_gets_a_token_for_each_connection_and_another_when_it_is_refused"
    ),
    "sink.websocket.oauth.token_url": By(
        "transports/websocket/test_sink_access.py::test_oauth_gets_a_token_for_each_connection_and_another_when_it_is_refused"
    ),
    "sink.websocket.oauth.client_id": By(
        "transports/websocket/test_sink_access.py::test_oauth_gets_a_token_for_each_connection_and_another_when_it_is_refused"
    ),
    "sink.websocket.oauth.client_secret": By(
        "transports/websocket/test_sink_access.py::test_oauth_gets_a_token_for_each_connection_and_another_when_it_is_refused"
    ),
    "sink.websocket.oauth.scope": By(
        "transports/websocket/test_sink_access.py::test_oauth_gets_a_token_for_each_connection_and_another_when_it_is_refused"
    ),
    "sink.websocket.oauth.resource": By(
        "transports/websocket/test_sink_access.py::test_oauth_gets_a_token_for_each_connection_and_another_when_it_is_refused"
    ),
    "sink.websocket.proxy": By("transports/websocket/test_sink_access.py::test_a_proxy_passes_the_websocket_on"),
    "sink.websocket.proxy_auth": By("transports/websocket/test_sink_access.py::test_a_proxy_passes_the_websocket_on"),
    "sink.websocket.proxy_auth.user": By(
        "transports/websocket/test_sink_access.py::test_a_proxy_passes_the_websocket_on"
    ),
    "sink.websocket.proxy_auth.password": By(
        "transports/websocket/test_sink_access.py::test_a_proxy_passes_the_websocket_on"
    ),
    "sink.websocket.connect_timeout": By(
        "transports/websocket/test_websocket_sink.py::test_connect_timeout_ends_a_handshake_without_an_answer"
    ),
    "sink.websocket.ping_interval": By(
        "transports/websocket/test_websocket_sink.py::test_ping_interval_and_ping_timeout_find_a_dead_upstream"
    ),
    "sink.websocket.ping_timeout": By(
        "transports/websocket/test_websocket_sink.py::test_ping_interval_and_ping_timeout_find_a_dead_upstream"
    ),
    "sink.websocket.max_message": By(
        "transports/websocket/test_websocket_sink.py::test_an_upstream_message_over_max_message_ends_the_connection"
    ),
    "sink.websocket.max_pending": By(
        "transports/websocket/test_websocket_sink.py::test_max_pending_and_max_unsent_refuse_what_is_beyond"
    ),
    "sink.websocket.max_unsent": By(
        "transports/websocket/test_websocket_sink.py::test_max_pending_and_max_unsent_refuse_what_is_beyond"
    ),
    "sink.websocket.max_connections": By(
        "transports/websocket/test_websocket_sink.py::test_max_connections_bounds_sessions"
    ),
    "sink.websocket.reconnect": By(
        "transports/websocket/test_websocket_sink.py::test_reconnect_keeps_an_upstream_that_is_down_in_quarantine"
    ),
    "sink.websocket.reconnect.max": By(
        "transports/websocket/test_websocket_sink.py::test_reconnect_keeps_an_upstream_that_is_down_in_quarantine"
    ),
    "sink.websocket.reconnect.within": By(
        "transports/websocket/test_websocket_sink.py::test_reconnect_keeps_an_upstream_that_is_down_in_quarantine"
    ),
    "sink.websocket.reconnect.quarantine": By(
        "transports/websocket/test_websocket_sink.py::test_reconnect_keeps_an_upstream_that_is_down_in_quarantine"
    ),
    "sink.websocket.close_when_idle": By(
        "transports/websocket/test_websocket_sink.py::test_close_when_idle_closes_the_shared_connection_and_the_next_call_opens_another"
    ),
    "source.stdio.max_in_flight": By(
        "transports/test_stdio_source.py::test_over_max_in_flight_the_request_is_refused_and_the_reader_goes_on"
    ),
    "source.stdio.max_message": By(
        "transports/test_stdio_source.py::test_lines_that_are_no_message_are_answered_and_the_connection_goes_on"
    ),
    "source.stdio.max_unread": By(
        "transports/test_stdio_source.py::test_a_client_that_reads_nothing_holds_up_its_own_exchanges_only_so_far"
    ),
    "store.memory.max_bytes": By("pipeline/stores/test_contract.py::test_the_number_of_bytes_is_bounded"),
    "store.memory.max_entries": By("pipeline/stores/test_memory.py::test_the_least_recently_used_goes_first"),
    "store.sqlite.busy_timeout": By("pipeline/stores/test_sqlite.py::test_a_short_lock_is_waited_for"),
    "store.sqlite.durability": By("pipeline/stores/test_sqlite.py::test_durability_is_what_sqlite_is_told"),
    "store.sqlite.max_bytes": By("pipeline/stores/test_contract.py::test_the_number_of_bytes_is_bounded"),
    "store.sqlite.max_entries": By("pipeline/stores/test_contract.py::test_the_number_of_entries_is_bounded"),
    "store.sqlite.path": By("pipeline/stores/test_sqlite.py::test_what_was_put_is_there_after_reopening"),
    "sink.sse.idle_timeout": By(
        "transports/http_upstream/test_event_session.py::test_a_silent_stream_is_asked_whether_it_lives"
    ),
    "sink.sse.max_message": By(
        "transports/http_upstream/test_event_session.py::test_garbage_on_the_stream_is_counted_and_the_stream_goes_on"
    ),
    "sink.sse.max_pending": By(
        "transports/http_upstream/test_event_session.py::test_only_so_many_requests_and_bytes_wait"
    ),
    "sink.sse.max_unsent": By(
        "transports/http_upstream/test_event_session.py::test_only_so_many_requests_and_bytes_wait"
    ),
    "sink.sse.headers": By(
        "transports/http_upstream/test_event_session.py"
        "::test_headers_hold_the_sinks_own_credential_and_nothing_of_the_clients"
    ),
}
# the rest of what `sse` shares with `http` is made into connections by the same code, `http_upstream/reach.py`
ROWS = {
    **ROWS,
    **{
        f"sink.sse.{option}": row
        for key, row in list(ROWS.items())
        if (option := key.removeprefix("sink.http.")) != key
        and option not in ("era", "follow_name")
        and f"sink.sse.{option}" not in ROWS
    },
}
_HELD = "transports/translation/to_legacy/test_to_legacy.py"
# what is held for clients of the other era is the same code behind every sink
ROWS = {
    **ROWS,
    **{
        f"sink.{sink}.translation{option}": By(f"{_HELD}::{test}", "" if option else "max_parked")
        for sink in ("http", "sse", "stdio", "websocket")
        for option, test in {
            "": "test_parked_calls_are_bounded",
            ".max_parked": "test_parked_calls_are_bounded",
            ".max_parked_per_caller": "test_parked_calls_are_bounded",
            ".max_sessions": "test_sessions_are_bounded_and_the_idlest_makes_room",
            ".max_sessions_per_caller": "test_one_caller_cannot_take_all_sessions",
            ".park_timeout": "test_a_parked_call_ends_with_its_time",
            ".session_idle": "test_an_idle_session_is_ended",
        }.items()
    },
}
"""`section.option`, or `kind.component.option` -> how it shows."""

DECLARED = {
    "limits": Limits, "pipeline": PipelineKeys, "run": Run, "sink": SinkKeys, "source": SourceKeys, "stage": StageKeys,
    "when": When,
}  # fmt: skip
"""Declarations that belong to no component."""


def _options(prefix: str, declared: type) -> Iterator[str]:
    for option in options_of(declared):
        yield f"{prefix}.{option.name}"
        for group in groups_in(option.shape):
            if group not in DECLARED.values():
                yield from _options(f"{prefix}.{option.name}", group)


@cache
def _all_options() -> frozenset[str]:
    options = {name for prefix, declared in DECLARED.items() for name in _options(prefix, declared)}
    for kind in (ComponentKind.SOURCE, ComponentKind.SINK, ComponentKind.STORE):
        for name in BUILT_IN[kind]:
            options.update(_options(f"{kind}.{name}", Registry().find(kind, name).Config))
    return frozenset(options)


def test_every_option_has_a_row_and_every_row_an_option():
    """Whoever adds an option says here how it shows."""
    assert sorted(_all_options() - ROWS.keys()) == [], "options without a row"
    assert sorted(ROWS.keys() - _all_options()) == [], "rows without an option"


def _configuration(row: Two, value: Any) -> dict[str, Any]:
    """Two sources, two pipelines and two sinks, with what the row sets."""
    data: dict[str, Any] = {
        "version": 1,
        "sources": {"in": {"http": {"bind": "127.0.0.1:1"}, "pipeline": "main"},
                    "too": {"http": {"bind": "127.0.0.1:2"}, "pipeline": "main"}},
        "pipelines": {"main": {"chain": [], "sink": "up"}, "side": {"chain": [], "sink": "spare"}},
        "sinks": {"up": {"embedded": {}}, "spare": {"embedded": {}}},
        "run": {},
    }  # fmt: skip
    for path, given in {**row.given, row.path: value}.items():
        *parents, last = path.split(".")
        place = data
        for parent in parents:
            place = place[parent]
        place[last] = given
    return data


def _fake(name: str) -> FakeSink:
    """Answers by what it is asked: 25 s of work with progress, a listener that stays until the drain, or at once."""

    async def behave(exchange: Exchange) -> Reply:
        for _ in range(3 if exchange.target == "work" else 0):
            await trio.sleep(8)
            await exchange.relay(PROGRESS)
        if exchange.method == "subscriptions/listen":
            await exchange.draining.wait()
        await trio.sleep(1)
        return Result({"from": name})

    return FakeSink(behave)


async def _live(row: Two, value: Any) -> list[Any]:
    """Everything that can be seen of a gateway while it serves some calls and is drained."""
    sinks: dict[str, Sink] = {} if row.real else {"up": _fake("up"), "spare": _fake("spare")}
    seen: list[Any] = []
    async with PipelineHarness(from_data(_configuration(row, value)), sinks=sinks) as gateway:
        seen.append([(row["id"], row["required"]) for row in gateway.engine.board.rows()])
        calls = []
        for gateway.source, gateway.caller in (("in", Caller("ana", "acme")), ("too", Caller("bob"))):
            for _ in range(2):
                for method, params in CALLS:
                    calls.append(gateway.start(method, params))
                    await trio.sleep(0.125)
        await trio.sleep(30)
        calls.append(gateway.start("tools/call", {"name": "work"}))
        await trio.sleep(1)
        start = trio.current_time()
        seen.append((await gateway.engine.drain(), trio.current_time() - start))
        seen += [(await call.wait(), call.interim, sorted(call.exchange.reply_headers.items())) for call in calls]
        seen.append([(run.stage, run.seconds) for run in gateway.stage_log])
    return seen


CALLS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("tools/call", {"name": "work"}),
    ("tools/call", {"name": "echo"}),
    ("tools/list", {}),
    ("server/discover", {}),
    ("subscriptions/listen", {}),
)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if isinstance(row, Two)])
async def test_two_values_of_an_option_do_not_look_the_same(name, autojump_clock):
    """The same calls of a gateway with another value go otherwise."""
    row = ROWS[name]
    assert isinstance(row, Two)

    assert await _live(row, row.one) != await _live(row, row.other)


@pytest.mark.parametrize("real", [False, True])
async def test_the_same_configuration_looks_the_same(real, autojump_clock):
    """The observation itself is deterministic; otherwise the test above would prove nothing."""
    row = Two("pipelines.main.sink", "up", "up", real=real)

    assert await _live(row, row.one) == await _live(row, row.other)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if isinstance(row, By)])
def test_the_test_that_shows_an_option_exists_and_mentions_it(name):
    """A reference to a test that is gone, or that is about something else, does not count."""
    row = ROWS[name]
    assert isinstance(row, By)
    file, _, function = row.test.partition("::")
    source = (TESTS / file).read_text(encoding="utf-8")
    wanted = row.word or name.rpartition(".")[2]
    found = [
        ast.get_source_segment(source, node) or ""
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function
    ]

    assert found, f"tests/{file} has no {function}"
    assert re.search(rf"\b{re.escape(wanted)}\b", found[0]), f"{row.test} does not mention {wanted!r}"
