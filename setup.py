"Package metadata lives in settings.ini; this file only hands it to setuptools."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

parser = ConfigParser(delimiters=['='])
parser.read('settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
extras = ('lab', 'clip', 'hub', 'ray', 'stores', 'dev', 'browser')

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    license='MIT',
    keywords=cfg['keywords'].split(),
    packages=find_packages(include=['vdb', 'vdb.*']) + ['vdb.papers'],
    package_dir={'vdb': 'vdb', 'vdb.papers': 'papers'},  # the report notebooks travel with the package
    package_data={'vdb': ['data/**/*', 'data/*', 'widgets/static/*'], 'vdb.papers': ['*.ipynb']},
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg['requirements'].split(),
    extras_require={extra: cfg[f'{extra}_requirements'].split() for extra in extras},
    entry_points={
        'console_scripts': ['vdb = vdb:command'],
        'nbdev': [f"{cfg['lib_name']} = {cfg['lib_path']}._modidx:d"],
    },
    zip_safe=False,
)
