"""What a GPU gives a viewer, as a dated JSON file: the embedded model's ladder and its streams, alone and beside another program; LTX-Video at its full size, with random weights. `python tests/gpu_streaming.py --out papers/results`"""
import asyncio
import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections import defaultdict

import numpy as np
from pipelines import tokenizer
from record import keep, options

prompts = ['a red circle moves right quickly on a black background', 'a blue square moves left slowly on a white background']
busy = 'import torch; a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)\nwhile True: a @ a; torch.cuda.synchronize()'


@contextlib.contextmanager
def beside(program: str):
    "Another process, busy with the same GPU."
    other = subprocess.Popen([sys.executable, '-c', program])
    try:
        time.sleep(8)
        assert other.poll() is None, 'the other program has ended'
        yield
    finally:
        other.kill()
        other.wait()


def ltx(device: str, small: bool):
    "LTX-Video 0.9.0 but for its text encoder, which is asked once a prompt: 1.9 billion weights, random."
    import torch
    from vdb.models.pipelines import declare_missing_torchvision_ops
    declare_missing_torchvision_ops()
    from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel
    from transformers import T5Config, T5EncoderModel
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            text = T5EncoderModel(T5Config(vocab_size=32, d_model=4096, d_kv=64, d_ff=64, num_layers=1, num_heads=2)).eval()
            transformer = LTXVideoTransformer3DModel(num_layers=1 if small else 28).eval()
            vae = AutoencoderKLLTXVideo().eval()
    finally: torch.set_default_dtype(torch.float32)
    return LTXPipeline(FlowMatchEulerDiscreteScheduler(), vae, text, tokenizer(), transformer).to(device, torch.bfloat16)


def back_to_back(model, settings, blocks: int) -> dict:
    "Blocks with nobody watching, and where their time goes: medians, in ms."
    from vdb.core import Prompt
    from vdb.streaming.engine import BlockMaker
    maker, took, stages = BlockMaker(model, 0, settings), [], defaultdict(list)
    for n in range(blocks + 3):
        begun = time.perf_counter()
        frames, _ = maker.make(Prompt(prompts[0]))
        if n < 3: continue
        took.append(1000*(time.perf_counter() - begun))
        laps = defaultdict(float)
        for lap in model.laps: laps[lap.stage] += 1000*lap.seconds
        for stage, ms in laps.items(): stages[stage].append(ms)
    spread = {f'p{q}': round(float(np.percentile(took, q)), 2) for q in (5, 50, 95)}
    return dict(frames=len(frames), blocks=blocks, block_ms=spread, frames_s=round(1000*len(frames)/float(np.median(took)), 1),
                stages_ms={stage: round(float(np.median(ms)), 2) for stage, ms in stages.items()})


def streamed(model, settings, seconds: float, fps: float, **how: object) -> dict:
    "What the viewer of one stream got."
    from vdb.streaming import benchmark_live_streaming
    metrics = asyncio.run(benchmark_live_streaming(model, prompts, seconds, fps, settings, keep=False, **how))
    number = lambda x: round(x, 5) if math.isfinite(x) else None
    levels = [b.level for b in metrics.trace.blocks]
    return dict(fps=fps, seconds=seconds, blocks=len(levels), levels={str(k): levels.count(k) for k in sorted(set(levels))},
                measures={m.metric: dict(value=number(m.value), lo=number(m.lo), hi=number(m.hi), unit=m.unit) for m in metrics.measures.values()})


def embedded(device: str, seconds: float, clips: int) -> dict:
    from vdb.models.pipelines import load
    from vdb.prompts.suites import load_suite
    from vdb.streaming.calibration import calibrate
    from vdb.streaming.continuation import as_streaming
    from vdb.streaming.live import stream_settings
    found = {}
    for dtype in ('bfloat16', 'float32'):
        model = as_streaming(load('tiny', device, dtype))
        found[dtype] = back_to_back(model, stream_settings(model), 40)
    settings = stream_settings(model)
    ladder = calibrate(model, list(load_suite('tiny').prompts), settings, clips=clips)
    found['candidates'] = json.loads(ladder.rows.round(4).to_json(orient='records'))
    how = dict(ladder=ladder.ladder, controller='bola')
    found['streams'] = [streamed(model, settings, seconds, fps, **how) for fps in (12., 24., 48., 96.)]
    if device == 'cuda':
        with beside(busy): found['beside_another'] = [streamed(model, settings, seconds, 24., **(how | dict(controller=c))) for c in ('bola', 'fixed')]
    return found


def full_size(device: str, seconds: float, small: bool) -> list[dict]:
    from vdb.core import Settings
    from vdb.streaming.continuation import as_streaming
    pipe, found = ltx(device, small), []
    model = as_streaming(pipe)
    for height, width in ((128, 128),) if small else ((320, 512), (512, 768), (704, 1216)):
        settings = Settings(frames=9, height=height, width=width, steps=4, guidance=1., fps=24.)
        row = dict(height=height, width=width, steps=4, guidance=1., parameters=sum(p.numel() for p in pipe.transformer.parameters()))
        found.append(row | back_to_back(model, settings, 2 if small else 20) | dict(stream=streamed(model, settings, seconds, 24.)))
    return found


def main() -> int:
    import torch
    ask = options(__doc__, seconds=20., clips=24, small=0)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    threads = torch.get_num_threads()
    found = dict(device=torch.cuda.get_device_name() if device == 'cuda' else 'cpu', embedded=embedded(device, ask.seconds, ask.clips))
    print(json.dumps(found), flush=True)  # What is there is there
    found['ltx_random'] = full_size(device, ask.seconds, bool(ask.small))
    keep('gpu-streaming', ask.out, threads, load=os.getloadavg(), **found)
    return 0


if __name__ == '__main__': sys.exit(main())
