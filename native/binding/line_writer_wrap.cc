#include "line_writer_wrap.h"

#include <uv.h>

#include "env.h"

namespace derplane {

Napi::Function LineWriterWrap::define(Napi::Env env) {
  return DefineClass(
      env, "LineWriter",
      {InstanceMethod("write", &LineWriterWrap::write), InstanceMethod("flush", &LineWriterWrap::flush),
       InstanceAccessor<&LineWriterWrap::unreported>("unreported"), InstanceAccessor<&LineWriterWrap::lost>("lost"),
       InstanceAccessor<&LineWriterWrap::lastError>("lastError")});
}

LineWriterWrap::LineWriterWrap(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<LineWriterWrap>(info),
      writer_(LineWriter::start(static_cast<int>(numberOf(info[0])), static_cast<size_t>(numberOf(info[1])))) {
  if (writer_ == nullptr) throwCode(info.Env(), "EAGAIN", "the system gives no thread for the log");
}

// write(line, notice, reported)
Napi::Value LineWriterWrap::write(const Napi::CallbackInfo& info) {
  writer_->write(textOf(info[0]), textOf(info[1]), static_cast<uint64_t>(numberOf(info[2])));
  return info.Env().Undefined();
}

Napi::Value LineWriterWrap::flush(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), writer_->flush(static_cast<uint32_t>(numberOf(info[0]))));
}

Napi::Value LineWriterWrap::unreported(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(writer_->unreported()));
}

Napi::Value LineWriterWrap::lost(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(writer_->lost()));
}

Napi::Value LineWriterWrap::lastError(const Napi::CallbackInfo& info) {
  const int error = writer_->lastError();
  const std::string text = error == 0 ? "" : std::string(uv_err_name(-error)) + ": " + uv_strerror(-error);
  return Napi::String::New(info.Env(), text);
}

}  // namespace derplane
