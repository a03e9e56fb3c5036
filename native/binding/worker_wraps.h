// `Shard` and `HandshakeIo` of src/native.ts: what lives on worker threads.
#pragma once

#include <napi.h>

#include <memory>

#include "../io/handshake_io.h"
#include "../io/shard.h"
#include "env.h"

namespace derplane {

class ShardWrap final : public Napi::ObjectWrap<ShardWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit ShardWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value close(const Napi::CallbackInfo& info);

  std::shared_ptr<Shard> shard_;
  std::shared_ptr<LoopTie> tie_;
};

class HandshakeIoWrap final : public Napi::ObjectWrap<HandshakeIoWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit HandshakeIoWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value open(const Napi::CallbackInfo& info);
  Napi::Value setTimeout(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value consume(const Napi::CallbackInfo& info);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value upgraded(const Napi::CallbackInfo& info);
  Napi::Value watchEnd(const Napi::CallbackInfo& info);
  Napi::Value remote(const Napi::CallbackInfo& info);
  Napi::Value setRemote(const Napi::CallbackInfo& info);
  Napi::Value provesMeshKey(const Napi::CallbackInfo& info);
  Napi::Value adopt(const Napi::CallbackInfo& info);
  Napi::Value serveHttp(const Napi::CallbackInfo& info);
  Napi::Value fail(const Napi::CallbackInfo& info);

  std::shared_ptr<HandshakeIo> io_;
  std::shared_ptr<LoopTie> tie_;
};

}  // namespace derplane
