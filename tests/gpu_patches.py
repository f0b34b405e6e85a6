"""What patches and batches cost on a GPU, as a dated JSON file: the embedded model, LTX-Video and Wan 2.1 1.3B at full size, the two with random weights; and how well a model of three numbers says it. `python tests/gpu_patches.py --out papers/results`"""
import gc
import statistics
import sys
import time

import numpy as np
from gpu_streaming import ltx, prompts
from pipelines import tokenizer
from record import keep, options


def wan(device: str, small: bool):
    "Wan 2.1 1.3B but for its text encoder, with random weights: a denoiser that is called twice a step."
    import torch
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import T5Config, T5EncoderModel
    torch.manual_seed(0)
    size = dict(num_attention_heads=2, attention_head_dim=24, ffn_dim=64, num_layers=3) if small else dict(num_attention_heads=12, ffn_dim=8960, num_layers=30)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            text = T5EncoderModel(T5Config(vocab_size=32, d_model=4096, d_kv=64, d_ff=64, num_layers=1, num_heads=2)).eval()
            transformer = WanTransformer3DModel(text_dim=4096, **size).eval()
            vae = AutoencoderKLWan(**dict(base_dim=8, dim_mult=[1, 1, 1, 1]) if small else {}).eval()
    finally: torch.set_default_dtype(torch.float32)
    shifted = UniPCMultistepScheduler(prediction_type='flow_prediction', use_flow_sigmas=True, flow_shift=3.)
    return WanPipeline(tokenizer(), text, vae, shifted, transformer).to(device, torch.bfloat16)


def patches(groups: int, rows: int, n: int) -> list:
    "The whole model, every second and every third step, and patches drawn by the moves of the search."
    from vdb.optimize.architecture import moved, regular
    from vdb.optimize.tunable import patch_of
    rng = np.random.default_rng(0)
    whole = {f'run_{r}_{c}': '#' for r in range(rows) for c in range(groups)} | {f'width_{c}': 1. for c in range(groups)}
    drawn = [whole, regular(whole, 2, 0), regular(whole, 3, 0)]
    while len(drawn) < n:
        config = drawn[rng.integers(3)]
        for _ in range(4): config = moved(config, rng)
        if config not in drawn: drawn.append(config)
    return [patch_of(c) for c in drawn]


def timed(model, settings, repeats: int, prompts: list) -> tuple[float, float]:
    "Seconds of a call, the median, and the memory that it had at most, 10⁹ bytes."
    import torch
    from vdb.core import Prompt
    asked, took, cuda = [Prompt(p) for p in prompts], [], torch.cuda.is_available()
    for n in range(repeats + 1):
        if cuda: torch.cuda.reset_peak_memory_stats()
        begun = time.perf_counter()
        model.generate_batch(asked, [n]*len(asked), settings)  # A black clip costs what another one costs
        if n: took.append(time.perf_counter() - begun)
    return statistics.median(took), torch.cuda.max_memory_allocated()/1e9 if cuda else float('nan')


def shape(name: str, made, settings, repeats: int, n: int) -> dict:
    "What each patch cost a model, and what the model of three numbers says of it from the others, and of those it was not shown."
    import torch
    from vdb.models.pipelines import DiffusersModel
    from vdb.optimize.architecture import LatencyModel
    from vdb.patches import Patch
    from vdb.performance import OptimizationProfile
    rows = []
    for patch in patches(6, 8, n) if name != 'small' else patches(3, 2, n):
        model = made()
        if not isinstance(model, DiffusersModel): model = DiffusersModel(model, name, device=str(model.device))
        OptimizationProfile(patch=patch).apply(model.pipe)
        seconds, gigabytes = timed(model, settings, repeats, prompts[:1])
        rows.append(dict(patch=Patch.read(patch).as_dict(), seconds=seconds, memory_gb=gigabytes))
        print(name, str(Patch.read(patch)), round(seconds, 4), round(gigabytes, 3), flush=True)
        del model
        gc.collect()  # A hook and its block hold each other
        if torch.cuda.is_available(): torch.cuda.empty_cache()
    read, seconds = [Patch.read(r['patch']) for r in rows], [r['seconds'] for r in rows]
    every, shown = LatencyModel(read, seconds), LatencyModel(read[:6], seconds[:6])
    later = [shown.seconds(p)/s - 1 for p, s in zip(read[6:], seconds[6:])]
    found = dict(model=name, parts=[float(x) for x in every.parts], left_one_out=every.error, from_six=[float(x) for x in later], rows=rows)
    print({k: v for k, v in found.items() if k != 'rows'}, flush=True)
    return found


def batches(repeats: int) -> list[dict]:
    "Several clips of the embedded model in one call."
    from vdb.core import Settings
    from vdb.models.pipelines import load
    model, rows = load('tiny'), []
    for n in (1, 2, 4, 8, 16, 32):
        seconds, gigabytes = timed(model, Settings(), repeats, (prompts*16)[:n])
        rows.append(dict(batch_size=n, seconds=seconds, clips_a_second=n/seconds, memory_gb=gigabytes))
        print(rows[-1], flush=True)
    return rows


def main() -> int:
    import torch
    from vdb.core import Settings
    from vdb.models.pipelines import load
    ask, cuda = options(__doc__, repeats=3, patches=14), torch.cuda.is_available()
    device, repeats = 'cuda' if cuda else 'cpu', ask.repeats
    found = dict(device=torch.cuda.get_device_name() if cuda else 'cpu', repeats=repeats, batches=batches(repeats), shapes=[])
    found['shapes'].append(shape('tiny', lambda: load('tiny'), Settings(), 5*repeats, ask.patches))
    size = dict(height=480, width=704, frames=121, steps=8) if cuda else dict(height=32, width=32, frames=9, steps=2)
    found['shapes'].append(shape('ltx-video' if cuda else 'small', lambda: ltx(device, not cuda), Settings(**size, guidance=3.), repeats, ask.patches)) if cuda else None
    size = dict(height=480, width=832, frames=33, steps=8) if cuda else dict(height=16, width=16, frames=5, steps=2)
    found['shapes'].append(shape('wan2.1-t2v-1.3b' if cuda else 'small', lambda: wan(device, not cuda), Settings(**size, guidance=5.), repeats, ask.patches if cuda else 7))
    keep('gpu-patches', ask.out, torch.get_num_threads(), **found)
    return 0


if __name__ == '__main__': sys.exit(main())
