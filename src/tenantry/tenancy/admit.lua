-- One request of a tenant: whether its limits let it in, counted if they do. All keys are the tenant's.
--
-- Each limit is a GCRA (ITU-T I.371, the virtual scheduling algorithm): one number, the theoretical arrival time of the
-- next request, is all that is kept of it. A request is let in if that lies no further ahead than the burst takes.
--
-- KEYS[1]  the day's use, a hash
-- KEYS[2]  of a session: the mark that it has ended; of an API key: the mark that it is one
-- KEYS[3…] the limits
-- ARGV[1]  'session', or 'key': then the last limit is that of strangers, and holds until the key has its mark
-- ARGV[2]  seconds for which the day's use is kept
-- ARGV[3…] of each limit: microseconds between two requests, and how many may come at once
-- Returns the verdict (1 let in, 0 refused, 2 let in as a stranger, -2 refused as one, -1 the session has ended); which
-- limit has refused (counted from 1; 0: none) and the milliseconds until it lets one in; then of each limit that holds
-- how many more it would let in now, and the milliseconds until it is whole again.

local marked = redis.call('EXISTS', KEYS[2]) == 1
local first, last, verdict = 3, #KEYS, 1
if ARGV[1] == 'session' then
  if marked then
    return {-1, 0, 0}
  end
elseif marked then
  last = #KEYS - 1
else
  first, verdict = #KEYS, 2
end

local clock = redis.call('TIME')
-- Microseconds since 1970 are 1.8e15: a double holds them exactly until the year 2255.
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local answer, refused, longest, arrivals = {}, 0, 0, {}

for i = first, last do
  local interval, burst = tonumber(ARGV[2 * i - 3]), tonumber(ARGV[2 * i - 2])
  local ahead = interval * burst
  local arrival = tonumber(redis.call('GET', KEYS[i])) or now
  -- No further ahead than a burst: the plan was another, or the clock of a Redis that took over is behind.
  arrival = math.min(math.max(arrival, now), now + ahead)
  local wait = arrival + interval - now - ahead
  if wait > 0 and wait > longest then
    refused, longest = i - first + 1, wait
  end
  arrivals[i] = arrival
end

for i = first, last do
  local interval, burst = tonumber(ARGV[2 * i - 3]), tonumber(ARGV[2 * i - 2])
  local arrival = arrivals[i]
  if refused == 0 then
    arrival = arrival + interval
    local life = string.format('%.0f', math.ceil((arrival - now) / 1000))
    redis.call('SET', KEYS[i], string.format('%.0f', arrival), 'PX', life)
  end
  answer[#answer + 1] = math.floor((interval * burst - (arrival - now)) / interval)
  answer[#answer + 1] = math.ceil((arrival - now) / 1000)
end

if refused ~= 0 then
  verdict = verdict == 2 and -2 or 0
elseif verdict == 1 and redis.call('HINCRBY', KEYS[1], 'requests', 1) == 1 then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return {verdict, refused, math.ceil(longest / 1000), unpack(answer)}
