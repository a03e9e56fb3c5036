#include "worker_wraps.h"

#include <algorithm>

#include "../io/address.h"
#include "../io/relay_core.h"

namespace derplane {

// --- Shard ---------------------------------------------------------------------------------------------------------

Napi::Function ShardWrap::define(Napi::Env env) {
  return DefineClass(env, "Shard", {InstanceMethod("close", &ShardWrap::close)});
}

ShardWrap::ShardWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ShardWrap>(info) {
  const Napi::Env env = info.Env();
  const auto core = RelayCore::find(static_cast<uint32_t>(numberOf(info[0])));
  const uint32_t index = static_cast<uint32_t>(numberOf(info[1]));
  if (core == nullptr || index >= core->config.router.shards) {
    throwCode(env, "ERR_DERP_BAD_OPTION", "no such relay or shard in this process");
    return;
  }
  tie_ = LoopTie::make(env);
  std::string error;
  shard_ = Shard::start(loopOf(env), core, index, error);
  if (shard_ == nullptr) {
    tie_->release();
    throwCode(env, "ERR_DERP_BAD_OPTION", error);
    return;
  }
  tie_->bind(shard_);
}

// close(done): `done` is called when no handle is left, unless the environment ended first.
Napi::Value ShardWrap::close(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto done = std::make_shared<Napi::FunctionReference>(Napi::Persistent(info[0].As<Napi::Function>()));
  shard_->close([tie = tie_, done, env] {
    tie->release();
    const Napi::HandleScope scope(env);
    callBack(*done, {});
  });
  return env.Undefined();
}

namespace {

// Calls `function` with ids and starts in turn, one flat array for the batch.
void callWithRequests(const Napi::FunctionReference& function, const std::vector<HandshakeRequest>& requests) {
  const Napi::Env env = function.Env();
  const auto list = Napi::Array::New(env, 2 * requests.size());
  for (uint32_t i = 0; i < requests.size(); ++i) {
    list.Set(2 * i, Napi::Number::New(env, static_cast<double>(requests[i].id)));
    list.Set(2 * i + 1, Napi::Number::New(env, static_cast<uint32_t>(requests[i].start)));
  }
  callBack(function, {list});
}

}  // namespace

// --- HandshakeIo ---------------------------------------------------------------------------------------------------

Napi::Function HandshakeIoWrap::define(Napi::Env env) {
  return DefineClass(
      env, "HandshakeIo",
      {InstanceMethod("open", &HandshakeIoWrap::open), InstanceMethod("setTimeout", &HandshakeIoWrap::setTimeout),
       InstanceMethod("read", &HandshakeIoWrap::read), InstanceMethod("consume", &HandshakeIoWrap::consume),
       InstanceMethod("write", &HandshakeIoWrap::write), InstanceMethod("upgraded", &HandshakeIoWrap::upgraded),
       InstanceMethod("watchEnd", &HandshakeIoWrap::watchEnd), InstanceMethod("remote", &HandshakeIoWrap::remote),
       InstanceMethod("setRemote", &HandshakeIoWrap::setRemote),
       InstanceMethod("provesMeshKey", &HandshakeIoWrap::provesMeshKey),
       InstanceMethod("adopt", &HandshakeIoWrap::adopt), InstanceMethod("serveHttp", &HandshakeIoWrap::serveHttp),
       InstanceMethod("fail", &HandshakeIoWrap::fail)});
}

HandshakeIoWrap::HandshakeIoWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<HandshakeIoWrap>(info) {
  const Napi::Env env = info.Env();
  auto core = RelayCore::find(static_cast<uint32_t>(numberOf(info[0])));
  if (core == nullptr || !info[1].IsFunction()) {
    throwCode(env, "ERR_DERP_BAD_OPTION", "no such relay in this process, or no function for its connections");
    return;
  }
  auto callback = std::make_shared<Napi::FunctionReference>(Napi::Persistent(info[1].As<Napi::Function>()));
  tie_ = LoopTie::make(env);
  std::string error;
  io_ = HandshakeIo::start(
      loopOf(env), std::move(core),
      [env](const std::function<void()>& body) {
        const Napi::HandleScope scope(env);
        // Promise reactions run when this scope ends.
        const Napi::CallbackScope callback_scope(env, Napi::AsyncContext(env, "derplane handshake"));
        body();
      },
      [callback](const std::vector<HandshakeRequest>& requests) { callWithRequests(*callback, requests); }, error);
  if (io_ == nullptr) {
    tie_->release();
    throwCode(env, "ERR_DERP_BAD_OPTION", error);
    return;
  }
  tie_->bind(io_);
}

namespace {

uint64_t idOf(const Napi::Value& value) { return static_cast<uint64_t>(numberOf(value)); }

Napi::Value errorOf(Napi::Env env, IoOutcome outcome, const std::string& why = "") {
  const char* name = ioOutcomeName(outcome);
  const std::string fallback =
      outcome == IoOutcome::kProxy ? "malformed PROXY header" : std::string("connection ") + name;
  Napi::Error error = Napi::Error::New(env, why.empty() ? fallback : why);
  error.Set("code", name);
  return error.Value();
}

}  // namespace

Napi::Value HandshakeIoWrap::open(const Napi::CallbackInfo& info) {
  if (!io_->open(idOf(info[0]), idOf(info[1]))) throwCode(info.Env(), "discarded", "the connection is gone");
  return info.Env().Undefined();
}

Napi::Value HandshakeIoWrap::setTimeout(const Napi::CallbackInfo& info) {
  io_->setTimeout(idOf(info[0]), idOf(info[1]));
  return info.Env().Undefined();
}

Napi::Value HandshakeIoWrap::read(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto deferred = Napi::Promise::Deferred::New(env);
  io_->read(idOf(info[0]), idOf(info[1]), idOf(info[2]),
            [env, deferred](IoOutcome outcome, const uint8_t* bytes, size_t size) {
              if (outcome == IoOutcome::kOk) {
                deferred.Resolve(Napi::Buffer<uint8_t>::Copy(env, bytes, size));
              } else {
                const bool told = outcome == IoOutcome::kTls;
                deferred.Reject(errorOf(
                    env, outcome, told ? std::string(reinterpret_cast<const char*>(bytes), size) : std::string()));
              }
            });
  return deferred.Promise();
}

Napi::Value HandshakeIoWrap::consume(const Napi::CallbackInfo& info) {
  io_->consume(idOf(info[0]), idOf(info[1]));
  return info.Env().Undefined();
}

Napi::Value HandshakeIoWrap::write(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto deferred = Napi::Promise::Deferred::New(env);
  size_t size = 0;
  const uint8_t* bytes = bytesOf(info[1], size);
  io_->write(idOf(info[0]), bytes, size, [env, deferred](IoOutcome outcome) {
    if (outcome == IoOutcome::kOk) {
      deferred.Resolve(env.Undefined());
    } else {
      deferred.Reject(errorOf(env, outcome));
    }
  });
  return deferred.Promise();
}

Napi::Value HandshakeIoWrap::upgraded(const Napi::CallbackInfo& info) {
  io_->upgraded(idOf(info[0]));
  return info.Env().Undefined();
}

Napi::Value HandshakeIoWrap::watchEnd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto deferred = Napi::Promise::Deferred::New(env);
  io_->watchEnd(idOf(info[0]), [env, deferred](IoOutcome outcome) { deferred.Reject(errorOf(env, outcome)); });
  return deferred.Promise();
}

// setRemote(id, 'ip:port')
Napi::Value HandshakeIoWrap::setRemote(const Napi::CallbackInfo& info) {
  io_->setRemote(idOf(info[0]), parseAddress(textOf(info[1])));
  return info.Env().Undefined();
}

Napi::Value HandshakeIoWrap::remote(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), io_->remote(idOf(info[0])));
}

Napi::Value HandshakeIoWrap::provesMeshKey(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), io_->core().provesMeshKey(textOf(info[0])));
}

Napi::Value HandshakeIoWrap::adopt(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Router::Adoption adoption;
  if (!keyOf(info[1], adoption.key)) return env.Undefined();
  size_t size = 0;
  const uint8_t* first = bytesOf(info[2], size);
  const auto options = info[3].As<Napi::Object>();
  const Napi::Value mesh_key = options.Get("meshKey");
  adoption.mesh = mesh_key.IsString() && io_->core().provesMeshKey(mesh_key.As<Napi::String>().Utf8Value());
  adoption.prober = boolField(options, "prober");
  adoption.not_ideal = boolField(options, "notIdeal");
  constexpr double kMaxSafeInteger = 9007199254740991;
  adoption.version =
      static_cast<int64_t>(std::clamp(numberField(options, "version"), -kMaxSafeInteger, kMaxSafeInteger));
  adoption.app_name = textOf(options.Get("appName"));
  if (!adoption.mesh) {
    adoption.label = io_->core().labelNumber(textOf(options.Get("label")));
    adoption.receive_rate =
        static_cast<uint64_t>(std::clamp(numberField(options, "receiveRate"), 0.0, kMaxSafeInteger));
  }
  const bool ok = io_->adopt(idOf(info[0]), adoption, std::vector<uint8_t>(first, first + size));
  return Napi::Boolean::New(env, ok);
}

Napi::Value HandshakeIoWrap::serveHttp(const Napi::CallbackInfo& info) {
  io_->serveHttp(idOf(info[0]), static_cast<uint32_t>(numberOf(info[1])), textOf(info[2]));
  return info.Env().Undefined();
}

Napi::Value HandshakeIoWrap::fail(const Napi::CallbackInfo& info) {
  io_->fail(idOf(info[0]), static_cast<uint32_t>(numberOf(info[1])), boolOf(info[2]), textOf(info[3]));
  return info.Env().Undefined();
}

}  // namespace derplane
