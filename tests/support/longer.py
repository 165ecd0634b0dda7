"""Which tests `make test` leaves to `make test-longer`: those that take five seconds of a core and more each.

They start many processes, kill jobs, compile whole encoders, or look at statistics. `.ci/run` runs both. Of each kind
of thing something shorter is left in `make test`: a job that is killed and resumed, a demo, a table, a fold, a kernel.
"""

import re

PATTERNS = (
    # Processes: jobs of several, jobs that end in many ways, commands one after the other.
    r"test_job_processes\.py::test_(processes_and_devices|a_signal|a_job_killed|a_worker|a_full_disk|explicit|a_dry|the_step)",
    r"test_job_claims\.py::test_of_two_jobs_in_one_directory",
    r"test_job_amortised\.py::test_(the_command|a_job_that_is_killed)",
    r"test_job_views\.py::test_several_processes",
    r"test_job_layers\.py::test_the_command",
    r"test_job_noise\.py::test_score_error_is_of_the_noise",
    r"test_comparison\.py::test_(the_command|each_way)",
    r"test_batch_scorer\.py::test_(ray|further_columns)",
    r"test_record_limits\.py::test_(stopping_does_not_wait|a_record_that_never_ends)\w+\[1\]",
    r"test_sources_damaged\.py::test_a_disk_that_goes_away_stops_the_job_of_a_list",
    r"test_identity\.py::test_what_was_begun_before",
    r"test_cli_output\.py::test_(a_damaged_file|a_job_without_a_score|a_name_that_an_encoding|debug)",
    r"test_cli_families\.py::test_(score_photographs|convert_and_export|models_fit|told_format)",
    r"test_cli_videos\.py::test_(clips_are_measured|ten_videos|most_clips|layers_of_videos|calibration)",
    r"test_cli_bench\.py::test_",
    r"test_cli\.py::test_(a_random_sample|several_inputs|models_lists|doctor)",
    r"test_help\.py::test_quiet",
    r"test_progress\.py::test_an_interrupted_command",
    r"test_dual\.py::test_the_commands",
    r"test_analysis_select\.py::test_(a_selection_(can_be_scored|and_an_evaluation)|groups_are|the_others)",
    r"test_fiftyone\.py::test_(what_lies_in_archives|the_command)",
    r"test_studies\.py::test_(the_synthetic|a_density_integrates)",
    r"test_training_(resume|masked_prediction|shipped)\.py::test_(a_killed|the_whole_loss|the_target|it_scores)",
    r"test_training_loop\.py::test_images_to_an_encoder",
    r"test_conversion_memory\.py::",
    r"test_sharding\.py::test_on_eight_devices",
    r"test_out_of_memory\.py::test_a_full_device",
    r"test_pages\.py::",
    r"test_documentation\.py::test_every_page",
    r"test_report\.py::test_(every_part_is_seen|a_file_of_spectra)",
    r"test_benchmarks\.py::test_what_runs_past",
    # Programs that take long to compile, or are interpreted.
    r"test_attention_kernels\.py::test_the_jacobian_is_the_same",
    r"test_fold\.py::test_the_fold_equals_jax\[(?!class token-float64)",
    r"test_fold\.py::test_(both_engines|an_encoder_goes)",
    r"test_sweep\.py::test_(each_layer|sixteen_bits)",
    r"test_layers\.py::test_a_pullback_is_that_of_vjp\[(attention pool|rotary.*-looped)",
    r"test_additions\.py::test_a_(kernel|pooling_head)",
    r"test_clips\.py::test_(a_clip_is_scored|two_thousand|a_block_s_own)",
    r"test_parity_families\.py::test_score\[",
    r"test_parity_timm\.py::test_parity",
    r"test_parity_drawn\.py::",
    r"test_parity_dinov2\.py::test_jacobian\[(giant|small-registers)",
    r"test_parity_vjepa2\.py::test_(odd|score|jacobian)",
    r"test_float16\.py::test_what_is_out_of_float16s_range",
    r"test_gradient\.py::",
    r"test_layerwise\.py::test_a_layer_that_is_unsure",
    r"test_concurrency\.py::test_(batches_at_the_same_time|images_score)",
    r"test_plan\.py::test_(a_plan_of_layers|a_plan_says|a_job_is_multiplied)",
    r"test_scorer\.py::test_(a_tolerance_sends|a_score_does_not_depend|auto_on_an|peak_memory|a_steeper|without_a_budget)",
    r"test_scorer\.py::test_(kernels_are_prepared|a_budget_decides)",
    # Statistics.
    r"test_scores\.py::test_the_predicted_error_is_honest_on_published_spectra",
    r"test_noise\.py::test_(each_rung|a_measurement|an_encoder_without)",
)

_ANY = re.compile("|".join(PATTERNS))


def is_longer(nodeid: str) -> bool:
    """Whether a test is left to `make test-longer`."""
    return _ANY.search(nodeid) is not None
