#include "worker_wraps.h"

#include "../io/relay_core.h"

namespace derplane {

// --- Shard ---------------------------------------------------------------------------------------------------------

Napi::Function ShardWrap::define(Napi::Env env) {
  return DefineClass(env, "Shard", {InstanceMethod("close", &ShardWrap::close)});
}

ShardWrap::ShardWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ShardWrap>(info) {
  const Napi::Env env = info.Env();
  const auto core = RelayCore::find(info[0].ToNumber().Uint32Value());
  const uint32_t index = info[1].ToNumber().Uint32Value();
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

// --- HandshakeIo ---------------------------------------------------------------------------------------------------

Napi::Function HandshakeIoWrap::define(Napi::Env env) {
  return DefineClass(env, "HandshakeIo",
                     {InstanceMethod("open", &HandshakeIoWrap::open), InstanceMethod("setTimeout", &HandshakeIoWrap::setTimeout),
                      InstanceMethod("read", &HandshakeIoWrap::read), InstanceMethod("consume", &HandshakeIoWrap::consume),
                      InstanceMethod("write", &HandshakeIoWrap::write), InstanceMethod("release", &HandshakeIoWrap::release),
                      InstanceMethod("discard", &HandshakeIoWrap::discard)});
}

HandshakeIoWrap::HandshakeIoWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<HandshakeIoWrap>(info) {
  const Napi::Env env = info.Env();
  tie_ = LoopTie::make(env);
  std::string error;
  io_ = HandshakeIo::start(
      loopOf(env),
      [env](const std::function<void()>& body) {
        const Napi::HandleScope scope(env);
        // Promise reactions run when this scope ends.
        const Napi::CallbackScope callback_scope(env, Napi::AsyncContext(env, "derplane handshake"));
        body();
      },
      error);
  if (io_ == nullptr) {
    tie_->release();
    throwCode(env, "ERR_DERP_BAD_OPTION", error);
    return;
  }
  tie_->bind(io_);
}

namespace {

uint64_t numberOf(const Napi::Value& value) {
  return value.IsNumber() ? static_cast<uint64_t>(value.As<Napi::Number>().Int64Value()) : 0;
}

Napi::Value errorOf(Napi::Env env, IoOutcome outcome) {
  const char* name = ioOutcomeName(outcome);
  Napi::Error error = Napi::Error::New(env, std::string("connection ") + name);
  error.Set("code", name);
  return error.Value();
}

}  // namespace

Napi::Value HandshakeIoWrap::open(const Napi::CallbackInfo& info) {
  if (!io_->open(numberOf(info[0]), numberOf(info[1]))) throwCode(info.Env(), "discarded", "the connection is gone");
  return info.Env().Undefined();
}

Napi::Value HandshakeIoWrap::setTimeout(const Napi::CallbackInfo& info) {
  io_->setTimeout(numberOf(info[0]), numberOf(info[1]));
  return info.Env().Undefined();
}

Napi::Value HandshakeIoWrap::read(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto deferred = Napi::Promise::Deferred::New(env);
  io_->read(numberOf(info[0]), numberOf(info[1]), numberOf(info[2]),
            [env, deferred](IoOutcome outcome, const uint8_t* bytes, size_t size) {
              if (outcome == IoOutcome::kOk) {
                deferred.Resolve(Napi::Buffer<uint8_t>::Copy(env, bytes, size));
              } else {
                deferred.Reject(errorOf(env, outcome));
              }
            });
  return deferred.Promise();
}

Napi::Value HandshakeIoWrap::consume(const Napi::CallbackInfo& info) {
  io_->consume(numberOf(info[0]), numberOf(info[1]));
  return info.Env().Undefined();
}

Napi::Value HandshakeIoWrap::write(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto deferred = Napi::Promise::Deferred::New(env);
  size_t size = 0;
  const uint8_t* bytes = bytesOf(info[1], size);
  io_->write(numberOf(info[0]), bytes, size, [env, deferred](IoOutcome outcome) {
    if (outcome == IoOutcome::kOk) {
      deferred.Resolve(env.Undefined());
    } else {
      deferred.Reject(errorOf(env, outcome));
    }
  });
  return deferred.Promise();
}

Napi::Value HandshakeIoWrap::release(const Napi::CallbackInfo& info) {
  io_->release(numberOf(info[0]));
  return info.Env().Undefined();
}

Napi::Value HandshakeIoWrap::discard(const Napi::CallbackInfo& info) {
  io_->discard(numberOf(info[0]));
  return info.Env().Undefined();
}

}  // namespace derplane
