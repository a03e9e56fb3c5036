// The question who is connected, from JavaScript to the shards.
#include <algorithm>
#include <cstring>

#include "env.h"
#include "relay_wrap.h"

namespace derplane {
namespace {

template <typename Enum>
Enum enumOf(const Napi::Object& object, const char* name) {
  return static_cast<Enum>(static_cast<uint8_t>(numberField(object, name)));
}

// The fields are those of NativeClientQuery in src/native.ts, whose callers have checked them.
bool readQuery(const Napi::Object& object, ClientQuery& query) {
  query.filter = enumOf<ClientFilter>(object, "filter");
  if (query.filter == ClientFilter::kKey && !keyOf(object.Get("key"), query.key)) return false;
  size_t size = 0;
  const uint8_t* prefix = bytesOf(object.Get("prefix"), size);
  if (prefix != nullptr) std::memcpy(query.prefix, prefix, std::min(size, sizeof query.prefix));
  query.prefix_bits = std::min<uint32_t>(static_cast<uint32_t>(numberField(object, "prefixBits")), 128);
  if (const Napi::Value apps = object.Get("apps"); apps.IsArray()) {
    const auto names = apps.As<Napi::Array>();
    for (uint32_t i = 0; i < names.Length(); ++i) query.apps.push_back(textOf(names.Get(i)));
  }
  query.sort = enumOf<ClientSort>(object, "sort");
  query.descending = boolField(object, "descending");
  query.limit = std::clamp<uint32_t>(static_cast<uint32_t>(numberField(object, "limit")), 1, ClientQuery::kMaxLimit);
  const uint8_t* after = bytesOf(object.Get("after"), size);
  query.has_after = size == sizeof query.after;
  if (query.has_after) std::memcpy(&query.after, after, size);
  query.after_has_number = boolField(object, "afterHasNumber");
  query.after_has_port = boolField(object, "afterHasPort");
  return true;
}

}  // namespace

// clients(ticket, query)
Napi::Value RelayWrap::clients(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto ticket = static_cast<uint32_t>(numberOf(info[0]));
  const auto query = std::make_shared<ClientQuery>();
  if (!readQuery(info[1].As<Napi::Object>(), *query)) return env.Undefined();
  for (const auto& slot : core_->slots) {
    // A key is on one shard.
    if (query->filter == ClientFilter::kKey && slot != core_->slots[core_->shardOf(query->key)]) continue;
    if (slot->post(Mail{.kind = Mail::Kind::kClients, .ticket = ticket, .query = query})) continue;
    throwCode(env, "ERR_DERP_CLOSED", "a shard has ended");
    break;
  }
  return env.Undefined();
}

}  // namespace derplane
