"""IRControlNet in stock samplers on the real server, with mini random networks."""

import numpy as np
import pytest
from comfyui.cancelling import cancel_at, progress_of
from comfyui.diffbir_graph import Array, latent_of, restoration, with_stock_apply
from comfyui.diffbir_models import control_weights, save
from comfyui.harness import Prompt, Server, node

WARNING = "put the node ModelSamplingDiscrete (v_prediction, zsnr on)"


@pytest.fixture(scope="module")
def image() -> Array:
    """(1, 64, 128, 3), multiples of 64 pixels."""
    return np.random.default_rng(1).random((1, 64, 128, 3), dtype=np.float32)


@pytest.fixture(scope="module")
def restored(diffbir_server: Server, image: Array) -> Array:
    """The latent of the standard prompt."""
    return latent_of(diffbir_server, restoration(diffbir_server, image))


@pytest.fixture(scope="module")
def uncontrolled(diffbir_server: Server, image: Array) -> Array:
    """What the base model makes of the same noise alone."""
    prompt = restoration(diffbir_server, image)
    for name in ("positive", "negative"):
        prompt["sample"]["inputs"][name] = [name, 0]
    return latent_of(diffbir_server, prompt)


def distance(first: Array, second: Array) -> float:
    """Largest difference, relative to the size of the numbers."""
    return float(np.abs(first - second).max() / np.abs(second).max())


def test_control_acts_by_its_strength(
    diffbir_server: Server, image: Array, restored: Array, uncontrolled: Array
) -> None:
    half, none = (
        latent_of(
            diffbir_server,
            restoration(diffbir_server, image, conditioning={"strength": strength}),
        )
        for strength in (0.5, 0.0)
    )
    np.testing.assert_array_equal(none, uncontrolled)
    assert distance(restored, uncontrolled) > 0.05
    assert distance(half, uncontrolled) > 0.02
    assert distance(half, restored) > 0.02


def test_stock_apply_gives_the_same(diffbir_server: Server, image: Array, restored: Array) -> None:
    prompt = with_stock_apply(restoration(diffbir_server, image))
    np.testing.assert_array_equal(latent_of(diffbir_server, prompt), restored)


def test_vae_of_the_loader_serves_an_apply_without_one(
    diffbir_server: Server, image: Array, restored: Array
) -> None:
    prompt = with_stock_apply(restoration(diffbir_server, image, loader={"vae": ["vae", 0]}))
    del prompt["conditioning"]["inputs"]["vae"]
    np.testing.assert_array_equal(latent_of(diffbir_server, prompt), restored)


@pytest.mark.parametrize("file", ["full_v1.ckpt", "mine.safetensors"])
def test_every_file_form_gives_the_same(
    diffbir_server: Server, image: Array, restored: Array, file: str
) -> None:
    latent = latent_of(diffbir_server, restoration(diffbir_server, image, control=file))
    np.testing.assert_array_equal(latent, restored)


@pytest.mark.parametrize(
    ("file", "dtype", "tolerance"),
    [
        ("half.safetensors", "default", 0.005),
        ("byte.safetensors", "default", 0.2),
        ("mini_v2.safetensors", "fp8_e4m3fn", 0.2),
        ("mini_v2.safetensors", "fp8_e5m2", 0.4),
    ],
)
def test_smaller_numbers_stay_close(
    diffbir_server: Server, image: Array, restored: Array, file: str, dtype: str, tolerance: float
) -> None:
    prompt = restoration(diffbir_server, image, control=file, loader={"weight_dtype": dtype})
    assert 0 < distance(latent_of(diffbir_server, prompt), restored) < tolerance


def custom(prompt: Prompt, guider: Prompt, sampler: str = "euler", denoise: float = 1.0) -> Prompt:
    """SamplerCustomAdvanced with DiffBIR's schedule instead of the KSampler."""
    prompt["noise"] = node("RandomNoise", noise_seed=3)
    prompt["sampler"] = node("KSamplerSelect", sampler_name=sampler)
    prompt["sigmas"] = node("DiffBIRScheduler", model=["model", 0], steps=3, denoise=denoise)
    prompt["guider"] = guider
    prompt["sample"] = node(
        "SamplerCustomAdvanced",
        noise=["noise", 0],
        guider=["guider", 0],
        sampler=["sampler", 0],
        sigmas=["sigmas", 0],
        latent_image=["conditioning", 2],
    )
    return prompt


def guider(name: str, **inputs: float) -> Prompt:
    return node(
        name,
        model=["model", 0],
        positive=["conditioning", 0],
        negative=["conditioning", 1],
        **inputs,
    )


@pytest.mark.parametrize("sampler", ["ddpm", "dpmpp_3m_sde"])
def test_constant_guider_equals_the_stock_one(
    diffbir_server: Server, image: Array, sampler: str
) -> None:
    ours, stock, growing = (
        latent_of(diffbir_server, custom(restoration(diffbir_server, image), chosen, sampler))
        for chosen in (
            guider("DiffBIRCFGGuider", cfg=4.0, rescale=False),
            guider("CFGGuider", cfg=4.0),
            guider("DiffBIRCFGGuider", cfg=4.0, rescale=True),
        )
    )
    np.testing.assert_array_equal(ours, stock)
    assert distance(growing, stock) > 1e-3


def test_growing_guider_starts_without_the_negative_prompt(
    diffbir_server: Server, image: Array
) -> None:
    """At timestep 999 the growing scale is 1: a single step does not see the negative prompt."""
    latents = []
    for chosen in (
        guider("DiffBIRCFGGuider", cfg=8.0, rescale=True),
        guider("CFGGuider", cfg=1.0),
    ):
        prompt = custom(restoration(diffbir_server, image), chosen)
        prompt["sigmas"]["inputs"]["steps"] = 1
        latents.append(latent_of(diffbir_server, prompt))
    np.testing.assert_allclose(*latents, rtol=0, atol=1e-4)


def test_scheduler_with_less_noise_keeps_more_of_the_image(
    diffbir_server: Server, image: Array
) -> None:
    def sampled(denoise: float) -> Array:
        prompt = restoration(diffbir_server, image, conditioning={"start": "condition"})
        chosen = guider("DiffBIRCFGGuider", cfg=1.0, rescale=False)
        return latent_of(diffbir_server, custom(prompt, chosen, denoise=denoise))

    prompt = restoration(diffbir_server, image, conditioning={"start": "condition"})
    prompt["save"]["inputs"]["latent"] = ["conditioning", 2]
    condition = latent_of(diffbir_server, prompt)
    differences = [float(np.abs(sampled(d) - condition).mean()) for d in (1.0, 0.5, 0.2, 0.0)]
    assert differences == sorted(differences, reverse=True)
    assert differences[-1] == 0


def test_second_control_net_in_the_chain(
    diffbir_server: Server, image: Array, restored: Array
) -> None:
    def chained(ours_first: bool) -> Array:
        prompt = restoration(diffbir_server, image)
        prompt["stock"] = node("ControlNetLoader", control_net_name="stock.safetensors")
        prompt["apply"] = node(
            "ControlNetApplyAdvanced",
            positive=["conditioning" if ours_first else "positive", 0],
            negative=["conditioning", 1] if ours_first else ["negative", 0],
            control_net=["stock", 0],
            image=["image", 0],
            strength=0.7,
            start_percent=0.0,
            end_percent=1.0,
        )
        last = "apply"
        if not ours_first:
            prompt["conditioning"]["inputs"] |= {
                "positive": ["apply", 0],
                "negative": ["apply", 1],
            }
            last = "conditioning"
        prompt["sample"]["inputs"] |= {"positive": [last, 0], "negative": [last, 1]}
        return latent_of(diffbir_server, prompt)

    first, second = chained(True), chained(False)
    assert distance(first, restored) > 0.01
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-4 * np.abs(first).max())


def test_two_of_ours_in_the_chain_add_up(
    diffbir_server: Server, image: Array, restored: Array
) -> None:
    prompt = restoration(diffbir_server, image, conditioning={"strength": 0.5})
    second = node("DiffBIRConditioning", **prompt["conditioning"]["inputs"])
    second["inputs"] |= {"positive": ["conditioning", 0], "negative": ["conditioning", 1]}
    prompt["second"] = second
    prompt["sample"]["inputs"] |= {"positive": ["second", 0], "negative": ["second", 1]}
    np.testing.assert_allclose(
        latent_of(diffbir_server, prompt), restored, rtol=0, atol=1e-4 * np.abs(restored).max()
    )


@pytest.mark.parametrize("noise_aug", [0, 150])
def test_each_picture_of_a_batch_is_as_if_alone(
    diffbir_server: Server, image: Array, noise_aug: int
) -> None:
    batch = np.concatenate([image, image[:, ::-1], 1 - image])
    conditioning = {"noise_aug": noise_aug, "seed": 20}
    together = latent_of(
        diffbir_server, restoration(diffbir_server, batch, conditioning=conditioning)
    )
    assert together.shape == (3, 4, 8, 16)
    for index in range(3):
        conditioning["seed"] = 20 + index
        prompt = restoration(
            diffbir_server, batch[index : index + 1].copy(), conditioning=conditioning
        )
        # ComfyUI draws the noise of a batch in one go: take the part of this picture.
        prompt["three"] = node("RepeatLatentBatch", samples=["conditioning", 2], amount=3)
        prompt["one"] = node("LatentFromBatch", samples=["three", 0], batch_index=index, length=1)
        prompt["sample"]["inputs"]["latent_image"] = ["one", 0]
        alone = latent_of(diffbir_server, prompt)
        assert distance(alone[0], together[index]) < 1e-4


def test_one_picture_for_a_batch_of_samples(
    diffbir_server: Server, image: Array, restored: Array
) -> None:
    prompt = restoration(diffbir_server, image)
    prompt["many"] = node("RepeatLatentBatch", samples=["conditioning", 2], amount=3)
    prompt["sample"]["inputs"]["latent_image"] = ["many", 0]
    samples = latent_of(diffbir_server, prompt)
    assert distance(samples[:1], restored) < 1e-4
    assert distance(samples[1:2], restored) > 0.1


def with_areas(prompt: Prompt, areas: list[tuple[int, int, int, int]]) -> Prompt:
    """The positive prompt on each of the areas (x, y, width, height) in pixels."""
    last = ["positive", 0]
    for index, (x, y, width, height) in enumerate(areas):
        name = f"area{index}"
        prompt[name] = node(
            "ConditioningSetArea",
            conditioning=["positive", 0],
            x=x,
            y=y,
            width=width,
            height=height,
            strength=1.0,
        )
        if index:
            prompt[f"both{index}"] = node(
                "ConditioningCombine", conditioning_1=last, conditioning_2=[name, 0]
            )
            name = f"both{index}"
        last = [name, 0]
    prompt["conditioning"]["inputs"]["positive"] = last
    return prompt


def test_area_of_the_whole_picture_changes_nothing(
    diffbir_server: Server, image: Array, restored: Array
) -> None:
    prompt = with_areas(restoration(diffbir_server, image), [(0, 0, 128, 64)])
    assert distance(latent_of(diffbir_server, prompt), restored) < 1e-5


def test_each_area_follows_its_part_of_the_image(diffbir_server: Server) -> None:
    """What lies far right in the image does not reach the area at the left."""
    image = np.random.default_rng(1).random((1, 64, 384, 3), dtype=np.float32)
    other = image.copy()
    other[:, :, 256:] = 0.5
    areas = [(0, 0, 64, 64), (64, 0, 320, 64)]

    def sampled(picture: Array) -> Array:
        prompt = with_areas(restoration(diffbir_server, picture), areas)
        prompt["sample"]["inputs"]["cfg"] = 1.0  # the negative prompt has no area
        return latent_of(diffbir_server, prompt)

    first, second = sampled(image), sampled(other)
    np.testing.assert_array_equal(first[..., :8], second[..., :8])
    assert distance(first[..., 32:], second[..., 32:]) > 1e-4


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.0), (1.0, 1.0)])
def test_no_part_of_the_sampling_equals_no_control(
    diffbir_server: Server, image: Array, uncontrolled: Array, start: float, end: float
) -> None:
    prompt = restoration(
        diffbir_server, image, conditioning={"start_percent": start, "end_percent": end}
    )
    assert distance(latent_of(diffbir_server, prompt), uncontrolled) < 1e-5


def test_a_file_that_is_written_anew_is_loaded_anew(
    diffbir_server: Server, image: Array, restored: Array
) -> None:
    file = diffbir_server.base / "models" / "controlnet" / "edited_v2.safetensors"
    save(file, control_weights())
    prompt = restoration(diffbir_server, image, control=file.name)
    np.testing.assert_array_equal(latent_of(diffbir_server, prompt), restored)
    save(file, control_weights(seed=31_000))
    assert distance(latent_of(diffbir_server, prompt), restored) > 0.05


def test_part_of_the_sampling(
    diffbir_server: Server, image: Array, restored: Array, uncontrolled: Array
) -> None:
    late, early = (
        latent_of(diffbir_server, restoration(diffbir_server, image, conditioning=part))
        for part in ({"start_percent": 0.5}, {"end_percent": 0.5})
    )
    for latent in (late, early):
        assert distance(latent, restored) > 1e-5
        assert distance(latent, uncontrolled) > 1e-5


def test_lora_on_the_base(diffbir_server: Server, image: Array, restored: Array) -> None:
    prompt = restoration(diffbir_server, image)
    prompt["lora"] = node(
        "LoraLoaderModelOnly", model=["model", 0], lora_name="lora.safetensors", strength_model=1.0
    )
    prompt["sample"]["inputs"]["model"] = ["lora", 0]
    assert distance(latent_of(diffbir_server, prompt), restored) > 1e-3
    # The weights of the base are as before once the LoRA is gone.
    again = latent_of(diffbir_server, restoration(diffbir_server, image))
    np.testing.assert_array_equal(again, restored)


def test_same_picture_whatever_ran_before(
    diffbir_server: Server, image: Array, restored: Array
) -> None:
    other = np.random.default_rng(2).random((2, 80, 72, 3), dtype=np.float32)
    conditioning = {"noise_aug": 300, "seed": 1}
    sampling = {"seed": 9, "sampler_name": "dpmpp_2m_sde", "scheduler": "karras"}
    latent_of(
        diffbir_server,
        restoration(diffbir_server, other, conditioning=conditioning, sampling=sampling),
    )
    again = latent_of(diffbir_server, restoration(diffbir_server, image))
    np.testing.assert_array_equal(again, restored)


def test_noise_on_the_condition_follows_its_seed(
    diffbir_server: Server, image: Array, restored: Array
) -> None:
    first, again, other = (
        latent_of(
            diffbir_server,
            restoration(diffbir_server, image, conditioning={"noise_aug": 150, "seed": seed}),
        )
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert distance(other, first) > 1e-3
    assert distance(first, restored) > 1e-3


def test_another_latent_size_encodes_the_image_anew(diffbir_server: Server, image: Array) -> None:
    prompt = restoration(diffbir_server, image)
    prompt["larger"] = node(
        "LatentUpscaleBy", samples=["conditioning", 2], upscale_method="bicubic", scale_by=2.0
    )
    prompt["sample"]["inputs"]["latent_image"] = ["larger", 0]
    stock = with_stock_apply(restoration(diffbir_server, image))
    stock["empty"]["inputs"] |= {"width": 256, "height": 128}
    ours, theirs = latent_of(diffbir_server, prompt), latent_of(diffbir_server, stock)
    assert ours.shape == (1, 4, 16, 32)
    np.testing.assert_array_equal(ours, theirs)


def test_cancel_in_the_middle(diffbir_server: Server, image: Array, restored: Array) -> None:
    prompt = restoration(diffbir_server, image, sampling={"steps": 4})
    messages, after = cancel_at(diffbir_server, prompt, "model", 2)
    assert progress_of(messages, "sample") == [(1, 4)]
    assert after == 0
    again = latent_of(diffbir_server, restoration(diffbir_server, image))
    np.testing.assert_array_equal(again, restored)


def test_warning_for_v21_on_an_eps_base(diffbir_server: Server, image: Array) -> None:
    file = "mini_DiffBIR_v2.1.safetensors"

    def warnings(prompt: Prompt) -> int:
        before = diffbir_server.log().count(WARNING)
        latent_of(diffbir_server, prompt)
        return diffbir_server.log().count(WARNING) - before

    assert warnings(restoration(diffbir_server, image, control=file)) == 1
    assert warnings(restoration(diffbir_server, image)) == 0
    named = restoration(diffbir_server, image, loader={"trained_on": "v2.1 (zero-SNR v)"})
    assert warnings(named) == 1
    right = restoration(diffbir_server, image, control=file)
    right["v"] = node(
        "ModelSamplingDiscrete", model=["model", 0], sampling="v_prediction", zsnr=True
    )
    right["sample"]["inputs"]["model"] = ["v", 0]
    assert warnings(right) == 0


def test_warning_for_v2_on_a_zero_snr_base(diffbir_server: Server, image: Array) -> None:
    prompt = restoration(diffbir_server, image)
    prompt["v"] = node(
        "ModelSamplingDiscrete", model=["model", 0], sampling="v_prediction", zsnr=True
    )
    prompt["sample"]["inputs"]["model"] = ["v", 0]
    before = diffbir_server.log().count("ModelSamplingDiscrete (eps, zsnr off)")
    latent_of(diffbir_server, prompt)
    assert diffbir_server.log().count("ModelSamplingDiscrete (eps, zsnr off)") == before + 1
