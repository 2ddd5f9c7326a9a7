"""The demo clips are real files, the same on every run, and split their class between sound and picture as promised."""

import dataclasses
import re
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from avrecog.annotations.demo.clip import ClipPlan, make_clip, write_clip
from avrecog.annotations.demo.motion import ACTIONS, STRIKING, draw_motion
from avrecog.annotations.demo.picture import draw_scene, render
from avrecog.annotations.demo.sound import MATERIALS, draw_sound, ring
from avrecog.annotations.demo.source import DemoConfig, read_demo, write_clips
from avrecog.config import load_params
from avrecog.errors import ConfigError

RECIPE = Path(__file__).parents[3] / "recipes" / "demo_clips.yaml"
PLAN = ClipPlan(
    path=Path("unused.mp4"),
    seed=(1, 0, 0),
    action="tap",
    material="metal",
    duration_s=2.0,
    fps=12.5,
    size=80,
    noise=0.02,
    n_distractors=2,
    sample_rate=16_000,
    snr_db=(0, 8),
    n_clicks=4,
)


def write_recipe(folder: Path, **changes: str) -> Path:
    """The shipped recipe with 12, 0 and 12 clips and with the values of some keys changed, wherever they stand."""
    text = RECIPE.read_text(encoding="utf-8")
    for key, value in {"train": "12", "val": "0", "test": "12", **changes}.items():
        text, n_changed = re.subn(rf"^( *{key}:).*$", rf"\1 {value}", text, flags=re.MULTILINE)
        assert n_changed == 1, key
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return read_demo(write_recipe(folder), folder / "clips")


def test_shipped_recipe_is_valid_and_balanced():
    config = load_params(RECIPE, demo=DemoConfig).demo
    assert (config.clips.train, config.clips.val, config.clips.test) == (720, 180, 300)
    assert len(config.actions) * len(config.materials) == 12


def test_rows_tell_path_label_split_and_a_unique_id(made):
    assert Counter(row.split for row in made) == {"train": 12, "test": 12}
    wanted = Counter({f"{action}_{material}": 2 for action in ACTIONS for material in MATERIALS})
    assert Counter(row.label for row in made) == wanted
    assert len({row.clip_id for row in made}) == len(made)
    assert all(row.group is None and Path(row.path).is_file() for row in made)
    assert made[3].path.endswith("clips/train/scrape_metal_0003.mp4")
    assert made[3].clip_id == "train_scrape_metal_0003"


def test_paths_stay_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(tmp_path, actions="[tap]", materials="[wood]", train="1", test="1")
    rows = read_demo(recipe, Path("data/demo"))
    assert [row.path for row in rows] == ["data/demo/train/tap_wood_0000.mp4", "data/demo/test/tap_wood_0000.mp4"]


def test_files_decode_to_the_stated_size_rate_and_length(made):
    with av.open(made[0].path) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height, video.average_rate) == (80, 80, 12.5)
        assert (audio.rate, audio.channels) == (16_000, 1)
        assert container.duration == pytest.approx(2e6, abs=1e3)
        assert len(list(container.decode(video))) == 25
    with av.open(made[0].path) as container:
        n_samples = sum(frame.samples for frame in container.decode(audio=0))
        assert 32_000 <= n_samples < 32_000 + 1024  # AAC comes in blocks of 1024


def test_file_holds_the_frames_and_the_waveform_in_step(tmp_path):
    plan = dataclasses.replace(PLAN, path=tmp_path / "clip.mp4")
    write_clip(plan)
    frames, waveform = make_clip(plan)
    with av.open(str(plan.path)) as container:
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with av.open(str(plan.path)) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])[: len(waveform)]
    assert np.abs(decoded.astype(float) - frames).mean() < 10
    correlation = np.fft.irfft(np.fft.rfft(heard) * np.fft.rfft(waveform).conj())
    assert np.argmax(correlation) == 0, "the sound has moved against the picture"


def test_same_seed_gives_the_same_bytes_in_one_process_and_in_two(made, tmp_path):
    config = load_params(RECIPE, demo=DemoConfig).demo
    again = read_demo(write_recipe(tmp_path), tmp_path / "again")
    assert [Path(row.path).read_bytes() for row in again] == [Path(row.path).read_bytes() for row in made]
    plans = [dataclasses.replace(PLAN, seed=(config.seed, 0, i), path=tmp_path / f"{i}.mp4") for i in range(4)]
    write_clips(plans, n_processes=1)
    alone = [plan.path.read_bytes() for plan in plans]
    write_clips(plans, n_processes=2)
    assert [plan.path.read_bytes() for plan in plans] == alone


def test_another_seed_split_or_number_gives_other_bytes(made, tmp_path):
    other = read_demo(write_recipe(tmp_path, seed="2"), tmp_path / "other")
    contents = [Path(row.path).read_bytes() for row in [*made, *other]]
    assert len(set(contents)) == len(contents)


def test_picture_is_the_same_whatever_the_material():
    shown = [make_clip(dataclasses.replace(PLAN, material=material))[0] for material in MATERIALS]
    assert np.array_equal(shown[0], shown[1])
    assert np.array_equal(shown[0], shown[2])


def test_picture_tells_the_actions_apart():
    shown = [make_clip(dataclasses.replace(PLAN, action=action))[0].astype(float) for action in ACTIONS]
    gaps = [np.abs(one - other).mean() for i, one in enumerate(shown) for other in shown[:i]]
    assert min(gaps) > 1


@pytest.mark.parametrize("action", STRIKING)
@pytest.mark.parametrize("seed", range(5))
def test_impact_is_seen_and_heard_at_the_same_time(action, seed):
    for_motion, for_picture, for_sound = np.random.default_rng(seed).spawn(3)
    motion = draw_motion(for_motion, action, duration_s=2.0)
    assert len(motion.impact_s) >= 2
    sound = draw_sound(for_sound, action, "wood", 32_000, 16_000, snr_db=(20, 20), n_clicks=0)
    loudness = np.convolve(ring(sound, motion, 16_000) ** 2, np.ones(80), mode="same")
    scene = draw_scene(for_picture, 200, 64, noise=0.0, n_distractors=0)
    scene = dataclasses.replace(scene, tilt=0.0, thing_colour=np.array([9.0, 9, 9]))  # whiter than all else
    times_s = np.arange(200) / 100
    white_rows = (render(scene, motion, times_s) == 255).all(axis=3).any(axis=2)  # (T, H)
    lowest = np.array([np.flatnonzero(rows).max(initial=0) for rows in white_rows])
    for impact_s in motion.impact_s[(motion.impact_s > 0.1) & (motion.impact_s < 1.9)]:
        near = np.abs(times_s - impact_s) < 0.1
        seen_s = times_s[near][lowest[near] == lowest[near].max()].mean()
        before = loudness[int((impact_s - 0.02) * 16_000)]
        after = loudness[int((impact_s + 0.005) * 16_000)]
        assert seen_s == pytest.approx(impact_s, abs=0.03)
        assert after > 3 * before


@pytest.mark.parametrize("action", ["scrape", "roll"])
def test_friction_is_loud_where_the_picture_moves_fast(action):
    for_motion, _, for_sound = np.random.default_rng(3).spawn(3)
    motion = draw_motion(for_motion, action, duration_s=2.0)
    sound = draw_sound(for_sound, action, "wood", 32_000, 16_000, snr_db=(20, 20), n_clicks=0)
    loudness = np.sqrt((ring(sound, motion, 16_000) ** 2).reshape(20, -1).mean(axis=1))
    moved = np.abs(np.diff(motion.place(np.arange(21) / 10)))
    assert np.corrcoef(loudness, moved)[0, 1] > 0.5


def test_sound_tells_the_material_to_a_nearest_centroid():
    def features(plan: ClipPlan) -> np.ndarray:
        waveform = make_clip(plan)[1]
        power = np.abs(np.fft.rfft(waveform.reshape(-1, 400) * np.hanning(400))) ** 2
        bands = np.log(power[:, 1:].reshape(len(power), 20, 10).mean(axis=2) + 1e-6)
        level = bands.mean(axis=0) - bands.mean()
        return np.concatenate([level, bands.std(axis=0), np.diff(bands, axis=0).std(axis=0)])

    materials = list(MATERIALS)
    truth = np.arange(168) % 3
    small = dataclasses.replace(PLAN, size=16)
    table = np.stack(
        [
            features(dataclasses.replace(small, seed=(5, 0, i), action=ACTIONS[i // 3 % 4], material=materials[i % 3]))
            for i in range(len(truth))
        ]
    )
    seen, asked = slice(0, 120), slice(120, None)
    table = (table - table[seen].mean(axis=0)) / table[seen].std(axis=0)
    centroids = np.stack([table[seen][truth[seen] == k].mean(axis=0) for k in range(3)])
    guessed = np.argmin(((table[asked, None] - centroids) ** 2).sum(axis=2), axis=1)
    assert np.mean(guessed == truth[asked]) > 0.6


def test_every_problem_of_a_recipe_is_told(tmp_path):
    recipe = write_recipe(tmp_path, seed="-1", actions="[tap, fly]", size="15", snr_db="[8, -4]", fps="0")
    with pytest.raises(ConfigError, match="5 problems") as caught:
        read_demo(recipe, tmp_path / "clips")
    for words in ("demo.seed", "demo.actions", "'fly'", "demo.picture.size", "demo.picture.fps", "snr_db"):
        assert words in str(caught.value)
    assert not (tmp_path / "clips").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": "13"}, "demo.clips.train: expected a multiple of the 12 classes, got 13"),
        ({"train": "13", "val": "5"}, r"2 problems\n.*\n  demo.clips.val: expected a multiple"),
        ({"size": "81"}, "demo.picture.size: expected an even number, got 81"),
        ({"materials": "[wood, wood]"}, "materials: expected each once"),
        ({"duration_s": "2.01"}, "duration_s: expected whole frames at 12.5 fps, got 25.125"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        read_demo(write_recipe(tmp_path, **changes), tmp_path / "clips")


def test_missing_recipe_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="can't be read"):
        read_demo(tmp_path / "none.yaml", tmp_path)


def test_unknown_action_is_refused():
    with pytest.raises(ValueError, match="got 'fly'"):
        draw_motion(np.random.default_rng(0), "fly", 2.0)
