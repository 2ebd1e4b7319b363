-- dead worker, its successor, the successor's key of life, seconds of life -> how many of its jobs the successor has now
local adopted = 0
redis.call('SET', ARGV[3], '1', 'EX', ARGV[4])
local held = redis.call('HGETALL', INFLIGHT)
for index = 1, #held, 2 do
    local queue, worker = string.match(held[index + 1], '^(%S+) (%S+)/%d+$')
    if worker == ARGV[1] then
        redis.call('HSET', INFLIGHT, held[index], queue .. ' ' .. ARGV[2] .. '/' .. redis.call('INCR', CLAIMS))
        adopted = adopted + 1
    end
end
return adopted
