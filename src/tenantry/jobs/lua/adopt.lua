-- dead worker, its successor, the successor's key of life, seconds of life -> how many of its jobs the successor has now
redis.call('SET', ARGV[3], '1', 'EX', ARGV[4])
local adopted, now = 0, redis.call('TIME')
local name = ARGV[2] .. '/' .. now[1] .. string.format('%06d', now[2])
local held = redis.call('HGETALL', INFLIGHT)
for index = 1, #held, 2 do
    local queue, worker = string.match(held[index + 1], '^(%S+) (%S+)/%d+$')
    if worker == ARGV[1] then
        redis.call('HSET', INFLIGHT, held[index], queue .. ' ' .. name .. string.format('%04d', adopted))
        adopted = adopted + 1
    end
end
return adopted
