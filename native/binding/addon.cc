// Loader entry: what src/native.ts calls NativeAddon.
#include <napi.h>

#include "../core/counters.h"
#include "env.h"
#include "line_writer_wrap.h"
#include "process_functions.h"
#include "relay_wrap.h"
#include "stun_wrap.h"
#include "tls_wraps.h"
#include "worker_wraps.h"

namespace derplane {
namespace {

Napi::Value counterNames(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto names = Napi::Array::New(env, kCounterCount);
  for (uint32_t i = 0; i < kCounterCount; ++i) {
    char name[96];
    counterName(i, name, sizeof name);
    names.Set(i, Napi::String::New(env, name));
  }
  return names;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("Relay", RelayWrap::define(env));
  exports.Set("Shard", ShardWrap::define(env));
  exports.Set("TlsServer", TlsServerWrap::define(env));
  exports.Set("TlsClient", TlsClientWrap::define(env));
  exports.Set("TlsSession", TlsSessionWrap::define(env));
  exports.Set("HandshakeIo", HandshakeIoWrap::define(env));
  exports.Set("StunServer", StunServerWrap::define(env));
  exports.Set("LineWriter", LineWriterWrap::define(env));
  exports.Set("counterNames", Napi::Function::New(env, counterNames));
  defineProcessFunctions(env, exports);
  exports.Set("ringOverhead", Napi::Number::New(env, static_cast<double>(kRingOverhead)));
  return exports;
}

}  // namespace

NODE_API_MODULE(derplane, init)

}  // namespace derplane
