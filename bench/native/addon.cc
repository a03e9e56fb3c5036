// The load generator as a Node addon: `run(config)` does one measurement, `forward(key, tls?)` is the bare forwarder;
// both work on a libuv worker thread. `makeCertificate()` is what all relays serve. The typed face is bench/load.ts,
// which checks nothing: whatever is missing here is a TypeError.
#include <napi.h>

#include <memory>
#include <optional>
#include <utility>

#include "certificate.h"
#include "departures.h"
#include "forwarder.h"
#include "modes.h"
#include "process_stats.h"
#include "stun.h"

namespace derplane_load {
namespace {

enum class Mode { kTraffic, kConnect, kIdle, kDepartures, kStun };

struct Job {
  Mode mode = Mode::kTraffic;
  FleetConfig fleet;
  TrafficConfig traffic;
  DeparturesConfig departures;
  StunConfig stun;
  uint32_t connect_warmup = 0;
  int64_t settle = 0;
};

// Reads the members of a configuration object; the first one that is missing or of the wrong type is remembered.
class Reader {
 public:
  explicit Reader(Napi::Object object) : object_(object) {}

  double Number(const char* name) {
    const Napi::Value value = object_.Get(name);
    if (value.IsNumber()) return value.As<Napi::Number>().DoubleValue();
    return Missing(name, "a number"), 0;
  }

  bool Flag(const char* name) {
    const Napi::Value value = object_.Get(name);
    if (value.IsBoolean()) return value.As<Napi::Boolean>().Value();
    return Missing(name, "true or false"), false;
  }

  int64_t Millis(const char* name) { return static_cast<int64_t>(Number(name) * 1e6); }

  std::string Text(const char* name) {
    const Napi::Value value = object_.Get(name);
    if (value.IsString()) return value.As<Napi::String>().Utf8Value();
    return Missing(name, "a string"), std::string();
  }

  std::string Bytes(const char* name) {
    const Napi::Value value = object_.Get(name);
    if (!value.IsTypedArray()) return Missing(name, "a Uint8Array"), std::string();
    const Napi::Uint8Array array = value.As<Napi::Uint8Array>();
    return std::string(reinterpret_cast<const char*>(array.Data()), array.ByteLength());
  }

  std::vector<uint32_t> Indices(const char* name) {
    const Napi::Value value = object_.Get(name);
    if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint32_array) {
      return Missing(name, "a Uint32Array"), std::vector<uint32_t>();
    }
    const Napi::Uint32Array array = value.As<Napi::Uint32Array>();
    return {array.Data(), array.Data() + array.ElementLength()};
  }

  void Missing(const char* name, const char* expected) {
    if (error.empty()) error = std::string(name) + ": needs " + expected;
  }

  Error error;

 private:
  Napi::Object object_;
};

Error ReadClients(Napi::Array list, std::vector<ClientConfig>& clients) {
  for (uint32_t i = 0; i < list.Length(); ++i) {
    Reader reader(list.Get(i).As<Napi::Object>());
    const std::string key = reader.Bytes("key");
    ClientConfig client{.key = {}, .hello = reader.Bytes("hello"), .targets = reader.Indices("targets")};
    if (reader.error.empty() && key.size() != kKeyBytes) reader.Missing("key", "32 bytes");
    for (const uint32_t target : client.targets) {
      if (target >= list.Length()) reader.Missing("targets", "indices of clients");
    }
    if (!reader.error.empty()) return "clients[" + std::to_string(i) + "]." + reader.error;
    memcpy(client.key.data(), key.data(), kKeyBytes);
    clients.push_back(std::move(client));
  }
  return {};
}

Error ReadDepartures(Reader& reader, DeparturesConfig& departures) {
  departures.clients = static_cast<uint32_t>(reader.Number("clients"));
  departures.receivers = static_cast<uint32_t>(reader.Number("receivers"));
  departures.departures = static_cast<uint32_t>(reader.Number("departures"));
  return reader.error;
}

Error ReadStun(Reader& reader, StunConfig& stun) {
  stun.port = static_cast<uint16_t>(reader.Number("port"));
  stun.window = static_cast<uint32_t>(reader.Number("window"));
  stun.warmup = reader.Millis("warmup");
  stun.duration = reader.Millis("duration");
  stun.server_pid = static_cast<pid_t>(reader.Number("relayPid"));
  return reader.error;
}

Error ReadJob(Napi::Object object, Job& job) {
  Reader reader(object);
  const std::string mode = reader.Text("mode");
  if (mode == "departures") {
    job.mode = Mode::kDepartures;
    return ReadDepartures(reader, job.departures);
  }
  if (mode == "stun") {
    job.mode = Mode::kStun;
    return ReadStun(reader, job.stun);
  }
  if (mode == "connect") {
    job.mode = Mode::kConnect;
  } else if (mode == "idle") {
    job.mode = Mode::kIdle;
  } else if (mode != "traffic") {
    reader.Missing("mode", "'traffic', 'connect', 'idle', 'departures' or 'stun'");
  }
  job.fleet.port = static_cast<uint16_t>(reader.Number("port"));
  job.fleet.tls = reader.Flag("tls");
  job.fleet.relay_pid = static_cast<pid_t>(reader.Number("relayPid"));
  job.fleet.concurrency = static_cast<uint32_t>(reader.Number("concurrency"));
  job.fleet.connect_timeout = reader.Millis("connectTimeout");
  if (job.mode == Mode::kConnect) job.connect_warmup = static_cast<uint32_t>(reader.Number("warmup"));
  if (job.mode == Mode::kIdle) job.settle = reader.Millis("settle");
  if (job.mode == Mode::kTraffic) {
    job.traffic.window = static_cast<uint32_t>(reader.Number("window"));
    job.traffic.rate = reader.Number("rate");
    job.traffic.packet_bytes = static_cast<uint32_t>(reader.Number("packetBytes"));
    job.traffic.warmup = reader.Millis("warmup");
    job.traffic.duration = reader.Millis("duration");
    if (job.traffic.packet_bytes < kMinPacketBytes || job.traffic.packet_bytes > 65536) {
      reader.Missing("packetBytes", ("a size from " + std::to_string(kMinPacketBytes) + " to 65536").c_str());
    }
  }
  const Napi::Value clients = object.Get("clients");
  if (!clients.IsArray()) reader.Missing("clients", "an array");
  if (!reader.error.empty()) return reader.error;
  return ReadClients(clients.As<Napi::Array>(), job.fleet.clients);
}

Napi::Object Numbers(Napi::Env env, std::initializer_list<std::pair<const char*, double>> members) {
  Napi::Object object = Napi::Object::New(env);
  for (const auto& [name, value] : members) object.Set(name, value);
  return object;
}

double Real(uint64_t value) { return static_cast<double>(value); }
double Real(int64_t value) { return static_cast<double>(value); }

Napi::Object ToObject(Napi::Env env, const TrafficResult& r) {
  Napi::Object object = Numbers(env, {{"durationNanos", Real(r.duration)},
                                      {"relayCpuNanos", Real(r.relay_cpu)},
                                      {"loadCpuNanos", Real(r.load_cpu)},
                                      {"relayResidentBytes", Real(r.relay_resident)},
                                      {"delivered", Real(r.delivered)},
                                      {"sent", Real(r.sent)},
                                      {"lost", Real(r.lost)},
                                      {"late", Real(r.late)},
                                      {"misordered", Real(r.misordered)},
                                      {"misdelivered", Real(r.misdelivered)},
                                      {"wrongSource", Real(r.wrong_source)},
                                      {"corrupted", Real(r.corrupted)},
                                      {"blocked", Real(r.blocked)},
                                      {"behind", Real(r.behind)},
                                      {"disconnected", Real(r.disconnected)}});
  object.Set("latencyNanos", Numbers(env, {{"p50", r.latency.Quantile(0.5)},
                                           {"p99", r.latency.Quantile(0.99)},
                                           {"p999", r.latency.Quantile(0.999)},
                                           {"max", Real(r.latency.max())}}));
  return object;
}

class Run : public Napi::AsyncWorker {
 public:
  Run(Napi::Env env, Job job)
      : Napi::AsyncWorker(env, "derplane_load"), deferred_(Napi::Promise::Deferred::New(env)), job_(std::move(job)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

 private:
  void Execute() override {
    Error error;
    switch (job_.mode) {
      case Mode::kTraffic:
        error = RunTraffic(job_.fleet, job_.traffic, traffic_);
        break;
      case Mode::kConnect:
        error = RunConnect(job_.fleet, job_.connect_warmup, connect_);
        break;
      case Mode::kIdle:
        error = RunIdle(job_.fleet, job_.settle, idle_);
        break;
      case Mode::kDepartures:
        error = RunDepartures(job_.departures, departures_);
        break;
      case Mode::kStun:
        error = RunStun(job_.stun, stun_);
        break;
    }
    if (!error.empty()) SetError(error);
  }

  void OnOK() override { deferred_.Resolve(Result()); }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

  Napi::Object Result() const {
    switch (job_.mode) {
      case Mode::kTraffic:
        return ToObject(Env(), traffic_);
      case Mode::kConnect:
        return Numbers(Env(), {{"durationNanos", Real(connect_.duration)},
                               {"relayCpuNanos", Real(connect_.relay_cpu)},
                               {"loadCpuNanos", Real(connect_.load_cpu)}});
      case Mode::kDepartures:
        return Numbers(Env(), {{"cpuNanos", Real(departures_.cpu)}, {"longestNanos", Real(departures_.longest)}});
      case Mode::kStun:
        return Numbers(Env(), {{"durationNanos", Real(stun_.duration)},
                               {"relayCpuNanos", Real(stun_.server_cpu)},
                               {"loadCpuNanos", Real(stun_.load_cpu)},
                               {"answers", Real(stun_.answers)},
                               {"wrong", Real(stun_.wrong)},
                               {"lost", Real(stun_.lost)}});
      case Mode::kIdle:
        break;
    }
    return Numbers(Env(), {{"residentBefore", Real(idle_.resident_before)},
                           {"residentThird", Real(idle_.resident_third)},
                           {"residentAll", Real(idle_.resident_all)}});
  }

  const Napi::Promise::Deferred deferred_;
  const Job job_;
  TrafficResult traffic_;
  ConnectResult connect_;
  IdleResult idle_;
  DeparturesResult departures_;
  StunResult stun_;
};

Napi::Value StartRun(const Napi::CallbackInfo& info) {
  if (!info[0].IsObject()) {
    Napi::TypeError::New(info.Env(), "run: needs a configuration object").ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
  Job job;
  if (const Error error = ReadJob(info[0].As<Napi::Object>(), job); !error.empty()) {
    Napi::TypeError::New(info.Env(), "run: " + error).ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
  auto* run = new Run(info.Env(), std::move(job));  // deletes itself when its promise is settled
  run->Queue();
  return run->promise();
}

class Forward : public Napi::AsyncWorker {
 public:
  Forward(Napi::Env env, std::unique_ptr<Forwarder> forwarder)
      : Napi::AsyncWorker(env, "derplane_forward"),
        deferred_(Napi::Promise::Deferred::New(env)),
        forwarder_(std::move(forwarder)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

 private:
  void Execute() override { SetError(forwarder_->Run()); }
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

  const Napi::Promise::Deferred deferred_;
  const std::unique_ptr<Forwarder> forwarder_;
};

// The second argument of `forward`: `{cert, key}`, or nothing for a plain forwarder.
Error ReadTls(Napi::Value value, std::optional<TlsContext>& tls) {
  if (!value.IsObject()) return {};
  Reader reader(value.As<Napi::Object>());
  const std::string certificate = reader.Text("cert");
  const std::string key = reader.Text("key");
  if (reader.error.empty()) tls = TlsContext::Server(certificate, key, reader.error);
  return reader.error;
}

// Returns `{port, failed}`; the promise `failed` only ever rejects.
Napi::Value StartForward(const Napi::CallbackInfo& info) {
  Key key{};
  const bool fits = info[0].IsTypedArray() && info[0].As<Napi::TypedArray>().ByteLength() == kKeyBytes;
  if (!fits) {
    Napi::TypeError::New(info.Env(), "forward: needs a key of 32 bytes").ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
  memcpy(key.data(), info[0].As<Napi::Uint8Array>().Data(), kKeyBytes);
  std::optional<TlsContext> tls;
  if (const Error error = ReadTls(info[1], tls); !error.empty()) {
    Napi::TypeError::New(info.Env(), "forward: tls." + error).ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
  auto forwarder = std::make_unique<Forwarder>(key, std::move(tls));
  if (const std::string error = forwarder->Listen(); !error.empty()) {
    Napi::Error::New(info.Env(), "forward: " + error).ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("port", static_cast<double>(forwarder->port()));
  auto* forward = new Forward(info.Env(), std::move(forwarder));  // lives as long as the process
  forward->Queue();
  object.Set("failed", forward->promise());
  return object;
}

Napi::Value MakeCertificateObject(const Napi::CallbackInfo& info) {
  Error error;
  const Certificate made = MakeCertificate(error);
  if (!error.empty()) {
    Napi::Error::New(info.Env(), "makeCertificate: " + error).ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("cert", made.certificate);
  object.Set("key", made.key);
  return object;
}

Napi::Value CpuNanosOf(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), Real(CpuNanos(info[0].ToNumber().Int32Value())));
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("run", Napi::Function::New(env, StartRun, "run"));
  exports.Set("forward", Napi::Function::New(env, StartForward, "forward"));
  exports.Set("makeCertificate", Napi::Function::New(env, MakeCertificateObject, "makeCertificate"));
  exports.Set("cpuNanos", Napi::Function::New(env, CpuNanosOf, "cpuNanos"));
  return exports;
}

}  // namespace
}  // namespace derplane_load

static Napi::Object Init(Napi::Env env, Napi::Object exports) { return derplane_load::Init(env, exports); }
NODE_API_MODULE(derplane_load, Init)
