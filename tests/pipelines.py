"Tiny pipelines with random weights, one a class: real diffusers code from the first file to the last pixel."
from pathlib import Path


def tokenizer():
    "A word-level tokenizer in the format of the real ones."
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast
    words = '<pad> </s> <unk> a red green blue circle square moves left right slowly fast on black'.split()
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token='<unk>'))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single='$A </s>', special_tokens=[('</s>', 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token='<pad>', eos_token='</s>', unk_token='<unk>')


def text_encoder():
    "A T5 of two narrow layers."
    from transformers import T5Config, T5EncoderModel
    return T5EncoderModel(T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)).eval()


def ltx(layers: int = 1):
    "LTX-Video, text to video."
    from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel
    vae = AutoencoderKLLTXVideo(latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8), layers_per_block=(1,)*5,
                                decoder_layers_per_block=(1,)*5, spatio_temporal_scaling=(True, True, False, False),
                                decoder_spatio_temporal_scaling=(True, True, False, False), decoder_inject_noise=(False,)*5,
                                upsample_residual=(False,)*4, upsample_factor=(1,)*4)
    transformer = LTXVideoTransformer3DModel(in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32,
                                             num_layers=layers, caption_channels=16)
    return LTXPipeline(FlowMatchEulerDiscreteScheduler(), vae, text_encoder(), tokenizer(), transformer), dict(frames=9, height=64, width=64, steps=2)


def wan(layers: int = 1):
    "Wan 2.1, text to video."
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
    vae = AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True])
    transformer = WanTransformer3DModel(patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16, text_dim=16,
                                        freq_dim=32, ffn_dim=32, num_layers=layers, cross_attn_norm=True, qk_norm='rms_norm_across_heads', rope_max_seq_len=32)
    pipe = WanPipeline(tokenizer=tokenizer(), text_encoder=text_encoder(), vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(shift=7.), transformer=transformer)
    return pipe, dict(frames=9, height=32, width=32, steps=2)


def cogvideox(layers: int = 1):
    "CogVideoX, text to video."
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel
    vae = AutoencoderKLCogVideoX(down_block_types=('CogVideoXDownBlock3D',)*4, up_block_types=('CogVideoXUpBlock3D',)*4, block_out_channels=(8,)*4,
                                 latent_channels=4, layers_per_block=1, norm_num_groups=2, temporal_compression_ratio=4)
    transformer = CogVideoXTransformer3DModel(num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=2, text_embed_dim=16,
                                              num_layers=layers, sample_width=4, sample_height=4, sample_frames=9, patch_size=2, temporal_compression_ratio=4,
                                              max_text_seq_length=226)
    return CogVideoXPipeline(tokenizer(), text_encoder(), vae, transformer, CogVideoXDDIMScheduler()), dict(frames=9, height=32, width=32, steps=2)


def svd():
    "Stable Video Diffusion, image to video."
    from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection
    unet = UNetSpatioTemporalConditionModel(block_out_channels=(32, 64), layers_per_block=1, sample_size=32, in_channels=8, out_channels=4,
                                            down_block_types=('CrossAttnDownBlockSpatioTemporal', 'DownBlockSpatioTemporal'),
                                            up_block_types=('UpBlockSpatioTemporal', 'CrossAttnUpBlockSpatioTemporal'), cross_attention_dim=32,
                                            num_attention_heads=8, projection_class_embeddings_input_dim=96, addition_time_embed_dim=32)
    scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule='scaled_linear', prediction_type='v_prediction', use_karras_sigmas=True,
                                       interpolation_type='linear', num_train_timesteps=1000, steps_offset=1, timestep_spacing='leading',
                                       timestep_type='continuous', sigma_min=0.002, sigma_max=700.)
    vae = AutoencoderKLTemporalDecoder(block_out_channels=(32, 64), down_block_types=('DownEncoderBlock2D',)*2, latent_channels=4)
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(hidden_size=32, projection_dim=32, num_hidden_layers=1, num_attention_heads=4, image_size=224,
                                                             intermediate_size=37, patch_size=56)).eval()
    pipe = StableVideoDiffusionPipeline(vae, encoder, unet, scheduler, CLIPImageProcessor())
    return pipe, dict(frames=2, height=32, width=32, steps=2)


builders = dict(ltx=ltx, wan=wan, cogvideox=cogvideox, svd=svd)


def save(kind: str, folder: str | Path) -> dict:
    "Save a tiny pipeline with seeded weights; returns the settings that suit it."
    import torch
    from vdb.models.pipelines import declare_missing_torchvision_ops
    declare_missing_torchvision_ops()
    torch.manual_seed(0)
    pipe, settings = builders[kind]()
    pipe.save_pretrained(folder, safe_serialization=True)
    return settings
