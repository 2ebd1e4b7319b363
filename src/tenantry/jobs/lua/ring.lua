-- What every script begins with: the ring's keys, and the one rule of membership.
--
-- The names of a queue's own keys are SAQ's and are composed here, since a script learns only while it runs whose turn
-- it is. On a Redis Cluster all of this must share a slot: one ring is one shard.

local READY, CLOCK, WAKE, INFLIGHT = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local DUE, SHARES, PASSES, PAUSED = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
-- What tenants use, as in tenancy/use.py: of the first each day has a key of its own.
local USE_JOBS, USE_DIRTY = KEYS[9], KEYS[10]
-- Is in the ring as well, behind everybody, for as long as the ring has not been lost: an empty one looks the same.
local MARK = '-'

local function list(queue, name)
    return 'saq:' .. queue .. ':' .. name
end

-- SAQ's key that says that a job is to be given up, made of the job's key, which is its id without what SAQ puts before.
local function abort_of(queue, id)
    return 'saq:abort:' .. string.sub(id, #('saq:job:' .. queue .. ':') + 1)
end

-- Of seventeen digits, which a double survives; Lua's own fourteen would let the clock stand still one day.
local function number(value)
    return string.format('%.17g', value)
end

local function clock()
    return tonumber(redis.call('GET', CLOCK) or '0')
end

-- Weight and cap of a queue. One that nobody has registered is the slowest.
local function share(queue)
    local weight, cap = string.match(redis.call('HGET', SHARES, queue) or '1 1', '^(%S+) (%d+)$')
    return tonumber(weight), tonumber(cap)
end

local function wake()
    -- One token is enough: whoever takes it and leaves something behind puts it back.
    if redis.call('LLEN', WAKE) == 0 then
        redis.call('RPUSH', WAKE, '1')
    end
end

-- Whose turn it is, and its pass; nothing if nobody waits.
local function head()
    local first = redis.call('ZRANGE', READY, 0, 0, 'WITHSCORES')
    if #first > 0 and first[1] ~= MARK then
        return first[1], tonumber(first[2])
    end
end

local function leave(queue)
    local pass = tonumber(redis.call('ZSCORE', READY, queue))
    if pass == nil then
        return
    end
    redis.call('ZREM', READY, queue)
    -- Who comes back at once does not get ahead of those who waited meanwhile.
    if pass > clock() then
        redis.call('HSET', PASSES, queue, number(pass))
    end
end

-- In the ring if and only if something waits and fewer are at work than may be. -> whether it is
local function place(queue)
    local _, cap = share(queue)
    if redis.call('LLEN', list(queue, 'queued')) == 0
        or redis.call('LLEN', list(queue, 'active')) >= cap
        or redis.call('SISMEMBER', PAUSED, queue) == 1 then
        leave(queue)
        return false
    end
    if not redis.call('ZSCORE', READY, queue) then
        -- Neither back in time, to catch up on turns that it had no use for, nor behind those that it has used up.
        local pass = math.max(tonumber(redis.call('HGET', PASSES, queue) or '0'), clock())
        redis.call('ZADD', READY, number(pass), queue)
        redis.call('HDEL', PASSES, queue)
    end
    return true
end

local function touch(queue)
    if place(queue) then
        wake()
    end
end

-- Wait for a time (seconds since 1970) to come.
local function await(queue, id, at)
    redis.call('ZADD', list(queue, 'incomplete'), at, id)
    redis.call('ZADD', DUE, 'LT', at, queue)
end

local function line_up(queue, id)
    redis.call('ZADD', list(queue, 'incomplete'), 0, id)
    redis.call('RPUSH', list(queue, 'queued'), id)
end

-- The next again, as if nobody had taken it.
local function put_back(queue, id)
    redis.call('ZADD', list(queue, 'incomplete'), 0, id)
    redis.call('LPUSH', list(queue, 'queued'), id)
end

-- As SAQ keeps finished jobs: for `ttl` seconds, for good if it is 0, not at all below.
local function store(id, payload, ttl)
    if ttl > 0 then
        -- A script that fails is not undone: nothing that comes from outside may fail here.
        redis.call('SET', id, payload, 'EX', math.ceil(ttl))
    elseif ttl == 0 then
        redis.call('SET', id, payload)
    else
        redis.call('DEL', id)
    end
end

-- End a job that nobody is at any more, if it is to be aborted: whoever wanted that does not want it to begin again.
-- -> whether it was
local function give_up(queue, id)
    local ttl, aborted = string.match(redis.call('GET', abort_of(queue, id)) or '', '^(%-?%d+) ({.*)$')
    if not aborted then
        return false
    end
    redis.call('ZREM', list(queue, 'incomplete'), id)
    redis.call('DEL', abort_of(queue, id))
    store(id, aborted, tonumber(ttl))
    redis.call('PUBLISH', id, 'aborted')
    return true
end

-- Keep a job that nobody runs any more, for an operator to look at: at most `limit` of a queue, the latest.
local function bury(queue, id, payload, limit)
    local dead = list(queue, 'dead')
    redis.call('SET', id, payload)
    redis.call('ZADD', dead, redis.call('TIME')[1], id)
    local surplus = redis.call('ZRANGE', dead, 0, -limit - 1)
    for _, old in ipairs(surplus) do
        redis.call('DEL', old)
        redis.call('ZREM', dead, old)
    end
end

-- Count a job of a tenant that is done, and mark that there is something to write down. Once, since a claim ends once.
local function count_use(queue, day)
    local tenant = string.match(queue, '^t:(.+)$')
    if tenant then
        local counters = USE_JOBS .. ':' .. day
        redis.call('HINCRBY', counters, tenant, 1)
        redis.call('EXPIRE', counters, 259200)
        redis.call('SADD', USE_DIRTY, day .. ' ' .. tenant)
    end
end
