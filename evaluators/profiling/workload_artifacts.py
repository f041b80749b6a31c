"""Random workloads as artifacts, to be timed as wholes."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from whisper.model import ModelDimensions, Whisper

from compression.calibration.calibration import Calibration, CalibrationSample, measure
from compression.compress import compress
from compression.export.onnx_runtime.artifact import export
from compression.recipe.dimensions import Dimensions
from compression.whisper.load import LoadedModel
from devices.profiler.measuring import Job, artifact_job
from evaluators.costs.inventory import prompt_length
from evaluators.profiling.random_workloads import Workload
from runtime.window import encoder_frames

CALIBRATION_FRAMES = 400
ANY_TOKEN = 100


def random_model(name: str, dimensions: Dimensions) -> LoadedModel:
    """A Whisper of these dimensions with random weights: as fast as a trained one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Whisper(ModelDimensions(**asdict(dimensions))).eval()
        nn.init.normal_(network.decoder.positional_embedding, std=0.01)
    return LoadedModel(name=name, digest="random", dimensions=dimensions, stored_bits=16, network=network)


def noise_calibration(model: LoadedModel) -> Calibration:
    """Which heads and channels stay does not matter to latency: calibrated on noise."""
    generator = torch.Generator().manual_seed(0)
    mel = torch.randn(model.dimensions.n_mels, CALIBRATION_FRAMES, generator=generator)
    return measure(model, [CalibrationSample(mel=mel, tokens=torch.arange(9), prompt_length=2)])


def workload_job(name: str, workload: Workload, model: LoadedModel, calibration: Calibration, folder: Path) -> Job:
    """Export the workload's recipe to `folder`, unless it is there, as a job of the measuring program."""
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        export(model, workload.recipe, compress(model, workload.recipe, calibration), folder)
    frames = encoder_frames(workload.recipe.window_s, workload.audio_s)
    return artifact_job(
        name,
        folder,
        mel=(1, workload.dimensions.n_mels, frames),
        steps=prompt_length(workload.dimensions) + workload.tokens,
        token=ANY_TOKEN,
    )
