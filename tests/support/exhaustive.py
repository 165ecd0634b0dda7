"""Which tests `make test` leaves to `make test-all`: of many cases that are alike all but one or two, and full widths.

Every property, family, level of precision, kind of input, and way to end a job keeps a case in `make test`. What is
left out is said here, in one list, so that the whole can be looked over; compiling is what takes the time.
"""

import re

PATTERNS = (
    # Encoders at full width, and whole ones.
    r"test_parity_families\.py::test_score_at_full_width",
    r"test_parity_families\.py::test_whole_metaclip_b16",
    r"test_parity_families\.py::test_full_width\[(?!clip-b32)",
    r"test_parity_families\.py::test_score\[(?!ijepa|dinov3\]|clip-quick-gelu\])",
    r"test_parity_vjepa2\.py::test_full_width",
    r"test_parity_vjepa2\.py::test_(jacobian|score|the_null)\w*\[(?!values that stand still)",
    r"test_clips\.py::test_the_first_guess_of_memory_is_near_xlas_account",
    r"test_cli_videos\.py::test_(other_frames|a_dry_run)",
    r"test_clips\.py::test_two_thousand_tokens\[batched",
    r"test_parity_timm\.py::test_(parity\[(?!mean, norm behind|registers)|score)",
    r"test_siglip\.py::test_odd_architectures",
    r"test_parity_dinov2\.py::test_full_small",
    r"test_parity_dinov2\.py::test_official_(small|registers_small)_is_the_same",
    r"test_parity_dinov2\.py::test_official_positions\b(?!_on_request)",
    r"test_parity_dinov2\.py::test_(jacobian|embedding)\[(?!small\]|small-|giant\])",
    r"test_parity_dinov2\.py::test_\w+\[(small|tiny-swiglu-registers)\]$(?<!test_jacobian\[small\])(?<!test_embedding\[small\])",
    r"test_cost\.py::test_the_layers_do_less_arithmetic_than_one_pullback_per_row\[224\]",
    r"test_scorer\.py::test_the_first_guess_of_memory_is_near_xlas_account\[(?!dinov2-small-112)",
    # Statistics over many images, or over trained networks.
    r"test_scorer\.py::test_the_predicted_error_is_honest",
    r"test_scores\.py::test_the_predicted_error_is_honest_on_published_spectra\[(?!bfloat16\])",
    r"test_accuracy\.py::.*\[(?!vits14_cifar10).*\]",
    r"test_training_shipped\.py::test_its_embeddings_fill_their_space_and_tell_what_the_card_says",
    r"test_studies\.py::test_the_gaussian_score_finds_a_known_density",
    r"test_studies\.py::test_a_world_run_goes_from_pictures_to_figures",
    r"test_trials\.py::test_(openoods_layout_is_read_and_judged|keeping_trains_on_what_is_kept)",
    # One of each make, of each objective, of each way.
    r"test_fold\.py::test_the_fold_equals_jax\[(?!class token-|swiglu|attention).*64\]",
    r"test_fold\.py::test_the_fold_equals_jax\[(?!class token[-]).*-float32\]",
    r"test_fold\.py::test_sixteen_bits_\w+\[(?!class token-float16)",
    r"test_attention_kernels\.py::test_the_jacobian_is_the_same\[rotary",
    r"test_forecast\.py::test_a_row_is_as_long_as_in_a_real_table",
    r"test_backend\.py::test_a_product_that_is_coarser\w+\[(?!float16|float32)",
    r"test_scorer\.py::test_precisions_differ_as_their_names_say",
    r"test_sweep\.py::test_each_layer_is_the_truncated_encoder\[(?!pre-norm)",
    r"test_layerwise\.py::test_(each_layer_is_an_encoder|every_way_gives|every_level_is|the_pure_function)",
    r"test_job_layers\.py::test_views_are_combined_for_each_layer",
    r"test_cost\.py::test_the_cost_of_a_sweep_is_less_than_that_of_its_layers\[(?!class token-b|pre-norm.*-l)",
    r"test_layers\.py::test_a_pullback_is_that_of_vjp\[(attention, one|MLP, quick|layer norm, large|block without)",
    r"test_scorer\.py::test_a_score_does_not_depend_on_its_batch\[(?!swiglu)",
    r"test_noise\.py::test_a_measurement_finds_what_a_null_direction_shows\[(?!bfloat16\])",
    r"test_gradient\.py::test_the_gradient_is_the_slope_of_the_score\[(?!patch mean)",
    r"test_training_resume\.py::test_whatever_the_optimizer_and_objective_keep_is_resumed\[(ijepa|shipped)",
    r"test_training_loop\.py::test_images_to_an_encoder_that_loads_and_scores\[ijepa\]",
    r"test_benchmarks\.py::test_(every_peer|the_trained|the_rest|devices_share)",
    r"test_sharding\.py::test_every_family_on_eight_devices",
    r"test_job_processes\.py::test_twenty_kills_and_changing_processes_lose_and_double_nothing",
    r"test_job_noise\.py::test_every_\w+_that_a_tolerance_may_reach_is_measured",
    r"test_training_resume\.py::test_a_lengthened_run_leaves_the_encoder_of_its_last_step",
    r"test_job_processes\.py::test_a_signal_ends_a_job_in_order\[(15-1|2-3)\]",
    r"test_pages\.py::test_the_commands_of_a_page_run\[(?!README)",
    r"test_wheel\.py::test_its_commands_run",
    r"test_parity_table\.py::test_a_recorded_model_still_measures_so",
    r"test_documentation\.py::test_the_notebooks_run",
)

_ANY = re.compile("|".join(PATTERNS))


def is_exhaustive(nodeid: str) -> bool:
    """Whether a test is left to `make test-all`."""
    return _ANY.search(nodeid) is not None
