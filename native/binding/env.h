// Small helpers between JavaScript values and ours, and the tie of a LoopUser to the end of its environment.
#pragma once

#include <napi.h>
#include <uv.h>

#include <memory>
#include <string>

#include "../core/key.h"
#include "../io/loop_handles.h"

namespace derplane {

uv_loop_t* loopOf(Napi::Env env);

// Closes `user` when its environment ends, and lets the environment wait until its handles are gone: a live handle at
// the end of an environment aborts the process. Must be called before the user's first handle is made; see
// LoopTie::bind.
class LoopTie {
 public:
  static std::shared_ptr<LoopTie> make(Napi::Env env);
  // From now on the environment's end closes `user`.
  void bind(const std::shared_ptr<LoopUser>& user) { user_ = user; }
  // The user is closed: the environment need not wait for it.
  void release();

 private:
  napi_async_cleanup_hook_handle handle_ = nullptr;
  std::shared_ptr<LoopUser> user_;
  std::shared_ptr<LoopTie> self_;
};

// Throws a JavaScript Error with a `code`.
void throwCode(Napi::Env env, const std::string& code, const std::string& message);

// The bytes of a typed array or Buffer; `size` 0 and null for anything else.
const uint8_t* bytesOf(const Napi::Value& value, size_t& size);
// A 32-byte key; throws and returns false for anything else.
bool keyOf(const Napi::Value& value, Key& key);
Napi::Value keyValue(Napi::Env env, const Key& key);

// The number, text or boolean of a value, 0, empty or false for anything else. Unlike the conversions of node-addon-api
// they work while the environment is being terminated, where those end the process.
double numberOf(const Napi::Value& value);
std::string textOf(const Napi::Value& value);
bool boolOf(const Napi::Value& value);

double numberField(const Napi::Object& object, const char* name);
bool boolField(const Napi::Object& object, const char* name);

// Calls `function` with `arguments` from outside JavaScript. An exception that it throws is uncaught, as from any
// callback.
void callBack(const Napi::FunctionReference& function, const std::initializer_list<napi_value>& arguments);

}  // namespace derplane
