// `LineWriter` of src/native.ts.
#pragma once

#include <napi.h>

#include <memory>

#include "../io/line_writer.h"

namespace derplane {

class LineWriterWrap final : public Napi::ObjectWrap<LineWriterWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit LineWriterWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value flush(const Napi::CallbackInfo& info);
  Napi::Value unreported(const Napi::CallbackInfo& info);
  Napi::Value lost(const Napi::CallbackInfo& info);
  Napi::Value lastError(const Napi::CallbackInfo& info);

  std::unique_ptr<LineWriter> writer_;
};

}  // namespace derplane
