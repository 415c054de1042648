"""Every obstacle that a newcomer once met in the first hour, and the test that keeps it away."""

from pathlib import Path

import pytest

from tests.quality.source import has_function

TESTS = Path(__file__).parents[1]
OBSTACLES = {
    # Installing
    "make run installs tools of development, and takes no port": "test_setup_script.py::"
    "test_make_run_installs_no_tools_and_takes_a_model_and_a_port",
    "after the set-up nothing says how anyclaude gets onto the PATH": "test_setup_script.py::"
    "test_a_new_environment_names_the_way_to_the_path",
    "a wheel works only beside the repository": "cli/test_installation.py::"
    "test_one_command_leads_from_the_wheel_to_the_first_answer",
    "nothing says that the server is ready": "server/test_server.py::test_the_ready_line_names_api_and_dashboard",
    "the banner breaks addresses": "cli/test_serve.py::test_a_free_port_is_found_and_said",
    # A model
    "the demo model is too small for Claude Code": "cli/test_launch.py::test_a_model_too_small_for_claude_code_is_said",
    "the demo model repeats itself": "models/test_profile.py::test_the_demo_model_repeats_itself_less",
    "the README's question does not end well": "cli/test_run.py::test_the_readmes_question_to_the_demo_model_ends_well",
    "there is no way to get a model": "cli/test_first_start.py::test_a_model_is_fetched_tried_kept_and_used",
    "a model cannot be listed, pulled or removed": "cli/test_models.py::test_a_model_is_pulled_once",
    "nobody recommends a model": "cli/test_models.py::test_recommendations_name_the_way_to_fetch_one",
    "words of other tools become prompts": "cli/test_run.py::test_commands_of_other_tools_are_no_prompts",
    "one cannot talk to the model in a terminal": "cli/test_run.py::test_a_conversation",
    "current-model is taken for a path": "cli/test_quick_start.py::test_the_variables_of_the_environment_are_in_force",
    "a short or an Ollama-style name is only a missing path": "models/test_location.py::"
    "test_a_name_of_another_kind_is_answered_with_hub_ids",
    "a wrong path hides the folder that was searched": "models/test_location.py::test_wrong_paths_are_refused",
    "a hub id offline is a resolver's message": "models/test_location.py::"
    "test_without_a_network_the_path_is_still_named",
    "a killed download leaves something behind": "models/test_demo.py::"
    "test_killed_at_any_moment_the_next_start_completes_it",
    "pip runs on after its start was killed": "models/test_demo.py::"
    "test_pip_ends_and_leaves_nothing_when_its_start_was_killed",
    "a full disk is reported as another fault": "models/test_wheel.py::test_a_full_disk_is_not_the_networks_fault",
    "a forbidden home is told to free space": "models/test_demo.py::test_a_home_that_cannot_be_written_is_named",
    # The server
    "the terminal shows no request": "telemetry/test_request_log.py::test_one_line_a_request",
    "/health floods the log": "telemetry/test_request_log.py::test_a_request_that_generates_nothing_has_its_line_too",
    "a closed terminal cuts running answers": "server/test_server.py::test_a_signal_lets_a_running_answer_end",
    "a port in use is not explained": "cli/test_serve.py::test_a_server_of_ours_on_the_port_is_named",
    "a stop during the load says what is not so": "server/test_server.py::test_what_is_waited_for_is_said",
    "HTTPS to a server of HTTP finds no server": "cli/test_launch.py::test_https_to_a_server_of_http_is_named",
    "a stranger on another machine is answered with ports of this one": "cli/test_launch.py::"
    "test_a_stranger_on_another_machine_is_not_answered_with_ports_of_this_one",
    "an error in the configuration is a byte offset": "config/test_config.py::test_a_wrong_file_is_named_with_its_key",
    "images are refused": "http/test_generation.py::test_media_are_named_in_the_prompt_or_refused",
    "the server's tools are refused": "http/test_generation.py::"
    "test_a_tool_that_nobody_can_run_is_left_out_and_named_once",
    "responses are not found": "http/test_stored_responses.py::test_all_dialects_share_one_answer",
    "embeddings are not found": "http/test_prompts.py::test_embeddings_are_cached_whatever_their_form",
    "the default models of clients are unknown": "http/test_paths.py::"
    "test_a_client_left_at_its_default_model_is_answered",
    "GET / leads nowhere": "http/test_responses.py::test_a_browser_is_led_to_the_dashboard_and_a_program_gets_links",
    # The response cache
    "the commands fail in the default set-up": "cli/test_looking_after.py::"
    "test_a_running_server_is_asked_for_its_cache",
    "clearing leaves the server's memory": "http/test_cache.py::test_clearing_reaches_every_tier",
    "a key must be typed in full": "cli/test_looking_after.py::test_the_beginning_of_two_keys_is_not_enough",
    "no single answer can be deleted": "cli/test_looking_after.py::test_a_key_is_deleted_from_the_stores",
    "a list of answers shows no question": "http/test_cache.py::test_a_question_is_shown_at_debug_level_2_only",
    # The dashboard
    "its numbers disagree while requests run": "dashboard/test_events.py::"
    "test_events_hold_the_statistics_of_their_moment",
    "speed counts idle time": "telemetry/test_activity.py::test_speed_is_of_the_last_seconds",
    "what runs is invisible": "dashboard/test_page.py::test_what_runs_is_shown_while_it_runs",
    "a long prompt shows no progress": "dashboard/test_page.py::test_the_reading_of_a_long_prompt_is_shown",
    "null settings are shown as default": "dashboard/test_page.py::test_settings_are_shown_without_secrets",
    "the content of a request is nowhere": "dashboard/test_page.py::test_content_is_shown_with_traces_only",
    "nothing says why a prompt was read again": "dashboard/test_page.py::"
    "test_the_reason_for_reading_again_and_the_times_are_shown",
    "nothing shows what prompts share": "dashboard/test_panels.py::test_the_prefix_cache_is_a_tree",
    "stored answers cannot be seen": "dashboard/test_panels.py::test_stored_answers_are_listed_deleted_and_cleared",
    "models cannot be switched": "dashboard/test_panels.py::test_models_are_unloaded_and_loaded",
    "the log cannot be read": "dashboard/test_panels.py::test_the_log_is_followed_without_content",
    "no client's settings can be copied": "dashboard/test_panels.py::test_clients_get_the_address_and_the_model",
    "there is no chat": "dashboard/test_chat.py::test_an_answer_is_streamed_and_its_repetition_is_a_hit",
    "dark colours are hard to see": "dashboard/test_accessibility.py::test_no_panel_has_a_barrier",
    # Other commands
    "config breaks words at 80 columns": "cli/test_looking_after.py::"
    "test_config_for_people_shows_no_secret_and_cuts_no_key",
    "a full standard output is a traceback": "cli/test_looking_after.py::"
    "test_a_full_disk_behind_the_output_is_one_line",
    "bars are question marks in another encoding": "cli/test_looking_after.py::"
    "test_an_encoding_without_bars_is_no_reason_to_fail",
    "one of something is a plural": "cli/test_stats_view.py::test_trouble_is_told_where_there_is_some",
    "an unknown mode names a hidden command": "cli/test_quick_start.py::"
    "test_other_modes_are_refused_in_one_line_that_names_this_command",
    "warm hangs without a word": "cli/test_warm.py::test_a_server_that_is_gone_or_unhealthy_ends_it_at_once",
    "a pipe gets lines cut at 80 columns": "cli/test_launch.py::test_a_pipe_gets_whole_lines",
    "a watch cannot be ended": "cli/test_looking_after.py::test_watching_ends_with_sigint_also_as_a_background_job",
}


@pytest.mark.parametrize("test", OBSTACLES.values(), ids=OBSTACLES)
def test_the_test_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    assert has_function(TESTS / file, name)
