"A package of somebody else: a metric, a controller, a strategy, a model card, a suite and a report, one small file each."
from setuptools import setup

setup(name='vdb-plugin-example', version='0.1', packages=['vdb_plugin_example'],
      package_data={'vdb_plugin_example': ['models/*', 'suites/*', 'reports/*']},
      entry_points={'vdb.metrics': ['example = vdb_plugin_example'], 'vdb.controllers': ['example = vdb_plugin_example.control'], 'vdb.strategies': ['example = vdb_plugin_example.corner'],
                    'vdb.models': ['example = vdb_plugin_example.models'], 'vdb.suites': ['example = vdb_plugin_example.suites'], 'vdb.reports': ['example = vdb_plugin_example.reports']})
