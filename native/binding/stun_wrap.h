// `StunServer` of src/native.ts.
#pragma once

#include <napi.h>

#include <memory>

#include "../stun/server.h"

namespace derplane {

class StunServerWrap final : public Napi::ObjectWrap<StunServerWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit StunServerWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value address(const Napi::CallbackInfo& info);
  Napi::Value figures(const Napi::CallbackInfo& info);
  Napi::Value readError(const Napi::CallbackInfo& info);
  Napi::Value firstPrivate(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);

  std::unique_ptr<StunServer> server_;
};

}  // namespace derplane
