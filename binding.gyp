{
  # The load generator belongs to the repository, not to the published package.
  'variables': {
    'with_bench%': '<!(test -d bench/native && echo 1 || echo 0)',
    # CI sets DERPLANE_WERROR. Elsewhere a newer compiler's new warning must not stop the build.
    'werror%': '<!(node -p "process.env.DERPLANE_WERROR ? 1 : 0")',
  },
  'target_defaults': {
    'defines': ['NAPI_VERSION=9', 'NAPI_DISABLE_CPP_EXCEPTIONS', 'NODE_ADDON_API_DISABLE_DEPRECATED',
      # An environment that ends (worker.terminate) refuses JavaScript: then there is nobody left to throw to.
      'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
    ],
    # Where Node's own flags differ from ours (optimisation, dialect), ours replace them.
    'cflags!': ['-O3', '-Wno-unused-parameter', '-fno-omit-frame-pointer'],
    'cflags_cc!': ['-std=gnu++17', '-std=gnu++20'],
    'cflags': ['-O2', '-g1', '-Wall', '-Wextra', '-Wconversion', '-fvisibility=hidden'],
    # node-addon-api's headers are system headers: our warnings are not about them.
    'cflags_cc': ['-std=c++20', '-fno-exceptions',
      '-isystem', "<!(node -p \"require('path').resolve(require('node-addon-api').include_dir)\")",
    ],
    'conditions': [['werror==1', {'cflags': ['-Werror']}]],
    # The log's thread may outlive the environment that loaded the addon: its code must stay.
    'ldflags': ['-Wl,-z,nodelete'],
  },
  'targets': [
    {
      'target_name': 'derplane',
      'sources': ["<!@(ls native/core/*.cc native/io/*.cc native/stun/*.cc native/tls/*.cc native/binding/*.cc)"],
    },
  ],
  'conditions': [
    ['with_bench==1', {
      'targets': [
        {
          'target_name': 'derplane_load',
          'sources': ["<!@(ls bench/native/*.cc native/core/*.cc)"],
        },
      ],
    }],
  ],
}
