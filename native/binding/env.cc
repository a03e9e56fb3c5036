#include "env.h"

namespace derplane {

uv_loop_t* loopOf(Napi::Env env) {
  uv_loop_t* loop = nullptr;
  napi_get_uv_event_loop(env, &loop);
  return loop;
}

std::shared_ptr<LoopTie> LoopTie::make(Napi::Env env) {
  auto tie = std::make_shared<LoopTie>();
  tie->self_ = tie;
  napi_add_async_cleanup_hook(
      env,
      [](napi_async_cleanup_hook_handle, void* data) {
        auto* t = static_cast<LoopTie*>(data);
        if (t->user_ == nullptr) {
          t->release();
        } else {
          t->user_->close([t] { t->release(); });
        }
      },
      tie.get(), &tie->handle_);
  return tie;
}

void LoopTie::release() {
  if (handle_ == nullptr) return;
  napi_remove_async_cleanup_hook(handle_);
  handle_ = nullptr;
  user_.reset();
  self_.reset();
}

void throwCode(Napi::Env env, const std::string& code, const std::string& message) {
  // On a thread that is being terminated nothing can be thrown any more; Napi::Error would abort the process for it.
  napi_throw_error(env, code.c_str(), message.c_str());
}

const uint8_t* bytesOf(const Napi::Value& value, size_t& size) {
  size = 0;
  if (!value.IsTypedArray()) return nullptr;
  void* data = nullptr;
  napi_typedarray_type type{};
  // Unlike the ArrayBuffer calls this also gives the address of shared memory.
  if (napi_get_typedarray_info(value.Env(), value, &type, &size, &data, nullptr, nullptr) != napi_ok) return nullptr;
  if (type == napi_bigint64_array || type == napi_biguint64_array) size *= 8;
  return static_cast<const uint8_t*>(data);
}

bool keyOf(const Napi::Value& value, Key& key) {
  size_t size = 0;
  const uint8_t* bytes = bytesOf(value, size);
  if (bytes == nullptr || size != kKeySize) {
    throwCode(value.Env(), "ERR_DERP_BAD_KEY", "a key must be 32 bytes");
    return false;
  }
  key = Key::from(bytes);
  return true;
}

Napi::Value keyValue(Napi::Env env, const Key& key) { return Napi::Buffer<uint8_t>::Copy(env, key.bytes, kKeySize); }

double numberOf(const Napi::Value& value) { return value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : 0; }

std::string textOf(const Napi::Value& value) { return value.IsString() ? value.As<Napi::String>().Utf8Value() : ""; }

bool boolOf(const Napi::Value& value) { return value.IsBoolean() && value.As<Napi::Boolean>().Value(); }

double numberField(const Napi::Object& object, const char* name) { return numberOf(object.Get(name)); }

bool boolField(const Napi::Object& object, const char* name) { return boolOf(object.Get(name)); }

void callBack(const Napi::FunctionReference& function, const std::initializer_list<napi_value>& arguments) {
  if (function.IsEmpty()) return;
  const Napi::Env env = function.Env();
  function.MakeCallback(env.Global(), arguments);
  if (env.IsExceptionPending()) {
    const Napi::Error error = env.GetAndClearPendingException();
    napi_fatal_exception(env, error.Value());
  }
}

}  // namespace derplane
